"""Fine-tune a BERT on a GLUE task or RACE: `torchrun --nproc-per-node 2 finetune.py --help`."""

from megatron.dslm.arguments.finetune import parse_finetune_args
from megatron.dslm.distributed.libraries import prepare_libraries


def main() -> None:
    """Checks the arguments and the task's files before anything heavy is imported, then trains."""
    args = parse_finetune_args()
    prepare_libraries()
    from megatron.dslm.finetuning.finetune import finetune

    finetune(args)


if __name__ == "__main__":
    main()
