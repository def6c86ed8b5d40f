"""docs/tutorial.md: its blocks run in order, and print what the page shows, numbers aside."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def blocks(page: str) -> list[tuple[str, str]]:
    """Return language and content of each code block; that of an output has no language."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


@pytest.mark.timeout(1800)  # a minute of CPU time, in seven processes one after the other
def test_the_blocks_run_and_print_what_is_shown(tmp_path, process_environment):
    for name in ("train_net.py", "tools", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    code, shown = [], []
    for language, content in blocks((ROOT / "docs/tutorial.md").read_text()):
        if language == "python":
            content = f"python - <<'PYTHON'\n{content}PYTHON\n"
        (code if language else shown).append(content)
    paths = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    quick = {"IMAGES": "12", "ITERATIONS": "3", "PATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        ["bash", "-eu", "-c", "\n".join(code)],
        cwd=tmp_path,
        env={**process_environment, **quick},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(code) > 5 and len(shown) > 2
    for line in filter(None, "".join(shown).splitlines()):
        words = [map(re.escape, re.split(r"[\d.]+", word)) for word in line.split()]
        pattern = r"\s+".join(r"(?:[-\d.]+|n/a|nan)".join(word) for word in words)
        assert re.search(pattern, done.stdout), f"not printed: {line}"
    for path in re.findall(r"`(output/[\w./-]+)`", (ROOT / "docs/tutorial.md").read_text()):
        assert (tmp_path / path).exists(), path
