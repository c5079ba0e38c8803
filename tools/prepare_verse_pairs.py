"""Writes three small tasks to fine-tune on, from Bible verses in two renderings in the public domain.

    python tools/prepare_verse_pairs.py --output data/verse_pairs

fetches the King James and the World English Bible from Debian's packages and writes, in the layouts that finetune.py
reads, paraphrase/ (QQP's), relation/ (MNLI's) and four_way/ (RACE's). They are not those tasks, and a result on them
is none on QQP, MNLI or RACE. Where there is no apt, give --kjv and --web.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dslm_patches.errors import UserError
from dslm_patches.files import atomic_outputs, new_folder
from megatron.dslm.data.command_line import ToolArgumentParser, run_tool

if TYPE_CHECKING:
    from tools.corpora.verses import Verse

README = """\
Made by tools/prepare_verse_pairs.py from the King James Version and the World English Bible, both in the public
domain. These are stand-ins: a result on them is not to be reported as one on QQP, MNLI or RACE.

paraphrase/  in QQP's layout: question1 is a King James verse, question2 a World English one; is_duplicate is 1 where
             it is the same verse, 0 where it is one of the five closest in words within 25 verses.
relation/    in MNLI's layout, but not entailment. sentence1 is a King James verse, sentence2 a World English one;
             "entailment" stands for the same verse, "neutral" for the next one, "contradiction" for a random one.
four_way/    in RACE's layout: which of four World English verses renders the King James verse of the question; the
             article is the King James passage around it.

verses.jsonl holds all verses of both; a tenth of the chapters are "dev" and appear in no train file. Leave them out of
text to pretrain on: train_verses.jsonl has the chapters that may be used, a document a line, both renderings in turn.
summary.json has sizes and hashes.
"""


def parse_arguments() -> argparse.Namespace:
    parser = ToolArgumentParser("Write three verse tasks in the layouts of QQP, MNLI and RACE.")
    parser.add_argument("--output", type=Path, required=True, help="the folder to make")
    parser.add_argument("--seed", type=int, default=1, help="of the split into chapters and of the rows")
    parser.add_argument("--cache", type=Path, help="a folder whose verses.jsonl is read, or written if not there")
    parser.add_argument("--kjv", type=Path, help="King James as a SWORD module: its folder, a .zip or a .deb")
    parser.add_argument("--web", type=Path, help="World English Bible, likewise")
    parser.add_argument("--allow-other-version", action="store_true", help="take texts of another SHA-256 too")
    args = parser.parse_args()
    for flag in ("kjv", "web"):
        path = getattr(args, flag)
        if path is not None and not path.exists():
            parser.error(f"--{flag} {path}: no such file or folder; expected a SWORD module")
    return args


def load_verses(args: argparse.Namespace) -> "list[Verse]":
    from tools.corpora import verses

    cached = args.cache / "verses.jsonl" if args.cache else None
    if cached is not None and cached.is_file():
        found = verses.read_verses(cached)
        verses.check_content(found, str(cached), args.allow_other_version)
    else:
        print("fetching and reading the verses ...", flush=True)
        found = verses.fetch_verses(args.kjv, args.web)
        verses.check_content(found, "King James and World English Bible", args.allow_other_version)
    found = verses.assign_splits(found, args.seed)
    if cached is not None and not cached.exists():
        with atomic_outputs(cached) as [temporary]:
            verses.write_verses(found, temporary)
    return found


def write_tasks(found: "Sequence[Verse]", seed: int, folder: Path) -> dict[str, Any]:
    """Writes the three task folders; gives rows and baselines by task."""
    from tqdm import tqdm

    from tools.corpora import verse_baselines as baselines
    from tools.corpora import verse_files as files
    from tools.corpora.verse_tasks import VerseTasks

    paraphrase, relation, four_way = {}, {}, {}
    for split in tqdm(["train", "dev"], unit=" splits", desc="tasks", disable=None, leave=False):
        maker = VerseTasks(found, split, seed)
        paraphrase[split], relation[split], four_way[split] = maker.paraphrase(), maker.relation(), maker.four_way()
        if not (paraphrase[split] and relation[split] and four_way[split]):
            raise UserError(f"--seed {seed}: no rows for {split}; expected the verses of two whole Bibles")
        files.write_paraphrase(paraphrase[split], folder / "paraphrase" / f"{split}.tsv")
        files.write_relation(relation[split], folder / "relation" / f"{split}.tsv", 5 if split == "dev" else 1)
        files.write_four_way(four_way[split], folder / "four_way" / split / "high")
    answers = [question.answer for passage in four_way["dev"] for question in passage.questions]
    return {
        "paraphrase": {
            "train": len(paraphrase["train"]),
            "dev": len(paraphrase["dev"]),
            "majority": baselines.majority([pair.label for pair in paraphrase["dev"]]),
            "word_overlap": baselines.pair_overlap_accuracy(paraphrase["train"], paraphrase["dev"], [0, 1]),
        },
        "relation": {
            "train": len(relation["train"]),
            "dev": len(relation["dev"]),
            "majority": baselines.majority([pair.label for pair in relation["dev"]]),
            "word_overlap": baselines.pair_overlap_accuracy(relation["train"], relation["dev"], [2, 1, 0]),
        },
        "four_way": {
            "train": sum(len(passage.questions) for passage in four_way["train"]),
            "dev": len(answers),
            "majority": baselines.majority(answers),
            "word_overlap": baselines.four_way_overlap_accuracy(four_way["dev"]),
        },
    }


def hash_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Bytes and SHA-256 of each file, of four_way of each split as a whole."""
    digests: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        parts = path.relative_to(folder).parts
        digest, size = digests.get(name := "/".join(parts[:2]), (hashlib.sha256(), 0))
        content = path.read_bytes()
        digest.update(content)
        digests[name] = (digest, size + len(content))
    return {name: {"bytes": size, "sha256": digest.hexdigest()} for name, (digest, size) in digests.items()}


def show(summary: dict[str, Any]) -> None:
    print(f"{'task':<12}{'train':>8}{'dev':>8}{'majority':>10}{'word overlap':>14}")
    for name, task in summary["tasks"].items():
        shares = f"{100 * task['majority']:>9.1f}%{100 * task['word_overlap']:>13.1f}%"
        print(f"{name:<12}{task['train']:>8}{task['dev']:>8}{shares}")
    for name, file in summary["files"].items():
        print(f"{file['sha256']}  {file['bytes'] / 1e6:6.2f} MB  {name}")


def main() -> None:
    args = parse_arguments()
    done = args.output / "summary.json"
    if done.is_file():
        summary = json.loads(done.read_text(encoding="utf-8"))
        if not isinstance(summary, dict) or not {"seed", "tasks", "files"} <= summary.keys():
            raise UserError(f"--output {args.output}: holds something else; expected a new or empty folder")
        if summary["seed"] != args.seed:
            raise UserError(
                f"--output {args.output}: made with --seed {summary['seed']}; expected another folder for {args.seed}"
            )
        print(f"{args.output}: already there, nothing done (remove it to write it again)")
        show(summary)
        return
    if args.output.exists() and not (args.output.is_dir() and not any(args.output.iterdir())):
        raise UserError(f"--output {args.output}: holds something else; expected a new or empty folder")

    from tools.corpora.verses import chapter_texts, content_hash, write_verses

    found = load_verses(args)
    with new_folder(args.output, unique=True) as folder:
        rows = write_tasks(found, args.seed, folder)
        write_verses(found, folder / "verses.jsonl")
        with open(folder / "train_verses.jsonl", "w", encoding="utf-8") as output:
            for text in chapter_texts(found, "train"):
                output.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        (folder / "README.txt").write_text(README, encoding="utf-8")
        summary = {"seed": args.seed, "content_sha256": content_hash(found), "tasks": rows, "files": hash_files(folder)}
        (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {args.output}: {len(found)} verses, content SHA-256 {summary['content_sha256']}")
    show(summary)


if __name__ == "__main__":
    run_tool(main)
