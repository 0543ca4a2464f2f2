"""What is kept from the screen while TensorFlow is imported, and what is not."""

import os
import sys

import pytest

from keras_semimed import quiet_import


def test_lines_about_the_processor_are_left_out_and_others_pass(monkeypatch, capfd):
    def write(name):
        assert name == "tensorflow"
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n")
        os.write(2, b"I0000 00:00:1795982417.853588    6572 port.cc:153] oneDNN custom operations are on.\n")
        os.write(2, b"a library is missing\n")
        print("told by Python", file=sys.stderr)
        raise ImportError("libc")

    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(quiet_import.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(quiet_import.importlib, "import_module", write)
    with pytest.raises(ImportError, match="libc"):
        quiet_import.import_tensorflow()
    assert sorted(capfd.readouterr().err.splitlines()) == ["a library is missing", "told by Python"]
    os.write(2, b"I0000 later\n")
    assert capfd.readouterr().err == "I0000 later\n"


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_other_backends_do_not_wait_for_it(monkeypatch, backend):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    monkeypatch.setattr(quiet_import, "import_tensorflow", lambda: pytest.fail("was imported"))
    quiet_import.import_backend()
