"""The commit that a run is of: pages and measurements do not make another one."""

from __future__ import annotations

import subprocess

from keras_semimed.experiments.runs import commits


def test_only_the_source_makes_another_commit(monkeypatch, tmp_path):
    def git(*words):
        names = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        done = subprocess.run(["git", "-C", str(tmp_path), *names, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    monkeypatch.setattr(commits, "ROOT", tmp_path)
    git("init", "-q")
    (tmp_path / "docs").mkdir()
    for name in ("code.py", "docs/page.md"):
        (tmp_path / name).write_text("1")
        git("add", "-A")
        git("commit", "-qm", name)
    code = git("rev-parse", "HEAD~1")
    assert commits.source_commit() == code
    assert commits.source_commit(git("rev-parse", "HEAD")) == code
    (tmp_path / "docs" / "page.md").write_text("2")
    assert commits.source_commit() == code
    (tmp_path / "code.py").write_text("2")
    assert commits.source_commit() == code + "+"
    assert commits.source_commit(code) == code and commits.source_commit(code + "+") == code + "+"


def test_outside_of_a_checkout_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(commits, "ROOT", tmp_path)
    assert commits.source_commit() is None
