# GPU image: NVIDIA's PyTorch has CUDA, NCCL, Transformer Engine and Apex built to match. Not built by our CI, which has
# no GPU.  docker build -t dslm . && docker run --gpus all --ipc host -it dslm
FROM nvcr.io/nvidia/pytorch:25.06-py3
WORKDIR /workspace/dslm
COPY pyproject.toml setup.py README.md LICENSE ./
COPY dslm_patches dslm_patches
COPY megatron megatron
# The image's own torch, Transformer Engine and Apex stay: its pip constraint file pins them.
RUN pip install --no-cache-dir -e '.[test]'
COPY . .
