"""Pretrain a GPT on megatron-core: `torchrun --nproc-per-node 2 pretrain_gpt.py --help`."""

from megatron.dslm.arguments import parse_args
from megatron.dslm.distributed.libraries import prepare_libraries


def main() -> None:
    """Checks the arguments before anything heavy is imported, then trains."""
    args = parse_args("gpt")
    prepare_libraries()
    from megatron.dslm.training.pretrain import pretrain

    pretrain(args)


if __name__ == "__main__":
    main()
