"""How the CPU's attention reads megatron-core's masks, True where a key is hidden, once for all layers of a step."""

import torch

from dslm_patches.mcore.cpu_attention import _LastMask


def test_a_mask_as_numbers() -> None:
    read = _LastMask()
    hidden = torch.tensor([[False, True], [True, True]]).view(1, 1, 2, 2)
    numbers = read(hidden, torch.float32)
    assert numbers is not None
    assert numbers[0].tolist() == [[[1, 0], [0, 0]]]
    assert numbers[1].tolist() == [[[0, -10000], [-10000, -10000]]]
    again = read(hidden, torch.float32)
    assert again is not None
    assert again[0] is numbers[0], "the next layer's"
    hidden[0, 0, 1] = False
    changed = read(hidden, torch.float32)
    assert changed is not None
    assert changed[0].tolist() == [[[1, 0], [1, 1]]], "changed in place"
    assert read(torch.zeros(1, 1, 2, 2, dtype=torch.bool), torch.float32) is None, "nothing is hidden"


@torch.inference_mode()
def test_a_mask_in_inference_mode() -> None:
    read = _LastMask()
    hidden = torch.tensor([[False, True], [True, True]]).view(1, 1, 2, 2)
    assert hidden.is_inference()
    for expected in ([[[1, 0], [0, 0]]], [[[0, 1], [1, 1]]]):
        numbers = read(hidden, torch.bfloat16)
        assert numbers is not None
        assert numbers[0].tolist() == expected
        hidden.logical_not_()
