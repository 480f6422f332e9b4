"""The list of what is mutated is complete."""

import textwrap
from pathlib import Path

import pytest

import singleflight
from tools.mutants.run import LEFT_OUT, TESTS

PACKAGE = Path(singleflight.__file__).parent
HERE = Path(__file__).parents[1]


def test_every_module_is_mutated_or_left_out_for_a_reason():
    """Once each."""
    listed = [*TESTS, *(name for names in LEFT_OUT.values() for name in names)]
    assert sorted(listed) == sorted(path.stem for path in PACKAGE.glob("*/*.py") if path.stem != "__init__")


def test_the_tests_named_exist():
    """A name that is wrong would leave its mutants to survive."""
    assert [path for paths in TESTS.values() for path in paths if not (HERE / path).exists()] == []


def test_what_our_own_marks_stand_above_is_mutated_too(tmp_path, monkeypatch):
    """Each copy has them, and what chooses between the copies has none; other decorators keep mutmut away."""
    pytest.importorskip("mutmut")
    (tmp_path / "lib").mkdir()  # where mutmut looks for code, as soon as it is imported
    monkeypatch.chdir(tmp_path)
    from tools.mutants import marked

    marked.install()
    made = marked.file_mutation.mutate_file_contents(
        "module.py",
        textwrap.dedent("""
            @runs("call")
            @looked_through
            def led():
                return 1

            @looked_through
            @cache
            def kept():
                return 1

            class Method:
                @runs("call")
                def led(self):
                    return 1
        """),
    )
    assert list(made.mutant_names) == ["x_led__mutmut_1", "xǁMethodǁled__mutmut_1"]
    assert made.code.count('@runs("call")\n@looked_through\ndef ') == 2
    assert made.code.count('    @runs("call")\n    def ') == 2
    assert made.code.count("\n@_mutmut_mutated(mutants_x_led__mutmut)\ndef led(") == 1
