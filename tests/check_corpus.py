#!/usr/bin/env python3
"""Checks the corpus: positions and markers, ids, counts, and that its code is what it says: the doctests and Rust tests pass.

Usage: check_corpus.py [corpus.json]. Needs no package; the Rust part needs rustc and is skipped, in words, where it is absent.
"""
import ast
import doctest
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

COUNTS = {"python_doctest": 10, "rust_test": 10, "python_baseline": 5, "rust_baseline": 5, "python_prompt": 10, "rust_prompt": 10}
IDS = {
    "python_doctest": """py_simple_add py_string_manipulation py_list_operations py_nested_structure py_complex_params
        py_single_char_param py_multi_param py_multiple_doctests py_default_args py_long_name""".split(),
    "rust_test": """rust_simple_add rust_result_type rust_tuple_return rust_option_return rust_vec_operations
        rust_multiple_assertions rust_cfg_test_module rust_should_panic rust_generic_complex rust_reference_params""".split(),
}
KEYS = {"id", "code", "marker_char_pos", "marker_pattern", "target_char_positions"}

errors = []


def expect(ok, sample, message):
    if not ok:
        errors.append(f"{sample['id']}: {message}")


def check_positions(group, sample):
    text, pattern, at = sample["code"], sample["marker_pattern"], sample["marker_char_pos"]
    targets = sample["target_char_positions"]
    expect(set(sample) == KEYS, sample, f"keys are {sorted(sample)}")
    expect(text[at:at + len(pattern)] == pattern, sample, f"{text[at:at + len(pattern)]!r} stands where the marker {pattern!r} should")
    expect(len(targets) >= 4 and targets == sorted(set(targets)), sample, "at least 4 targets, ascending, each once")
    expect(0 <= min(targets) and max(targets) < at, sample, "targets stand before the marker")
    expect(all(not text[p].isspace() for p in targets), sample, "a target is white space")
    keyword = "def" if group.startswith("python") else "fn"
    expect(text[targets[0]:targets[0] + len(keyword)] == keyword, sample, f"the first target is the function's {keyword}")
    if group.endswith("_prompt"):
        expect(at + len(pattern) == len(text), sample, "a prompt ends at its marker")
        expect(pattern == (">>>" if group.startswith("python") else "fn"), sample, "the marker of a prompt")
    else:
        expect(text == text.strip(), sample, "a finished text ends with its last line, without the line end")
        expect(text.find(pattern) == at, sample, "the marker is the pattern's first place")
    if group == "rust_baseline":
        expect("#[test]" not in text, sample, "a baseline holds no test")


def check_python(group, sample):
    """Finished texts parse; doctests pass, and baselines have none. A prompt is closed first."""
    text = sample["code"]
    if group == "python_prompt":
        text += ' 0\n    """\n'
    try:
        ast.parse(text)
    except SyntaxError as e:
        expect(False, sample, f"does not parse: {e}")
        return
    if group == "python_prompt":
        return
    module = {"__name__": sample["id"]}
    exec(compile(text, sample["id"], "exec"), module)
    examples = failed = 0
    for value in list(module.values()):
        if getattr(value, "__module__", None) != sample["id"]:
            continue
        for test in doctest.DocTestFinder().find(value, globs=module):
            result = doctest.DocTestRunner(verbose=False).run(test, out=lambda s: errors.append(f"{sample['id']}: {s}"))
            examples += result.attempted
            failed += result.failed
    if group == "python_doctest":
        expect(examples > 0 and failed == 0, sample, f"{examples} doctest examples, {failed} failed")
    else:
        expect(examples == 0, sample, "a baseline has a doctest")


def check_rust(samples, folder):
    """One crate per sample, run as a test program. A prompt gets an empty test behind its fn."""
    for group, sample in samples:
        text = sample["code"]
        if group == "rust_prompt":
            inside = "mod tests" in text
            text += " empty() {}\n" + ("}\n" if inside else "")
        source, program = folder / f"{sample['id']}.rs", folder / sample["id"]
        source.write_text(text, encoding="utf-8")
        built = subprocess.run(["rustc", "--edition", "2021", "--test", "-A", "warnings", "-o", program, source], capture_output=True, text=True)
        expect(built.returncode == 0, sample, f"does not compile:\n{built.stderr}")
        if built.returncode:
            continue
        ran = subprocess.run([program], capture_output=True, text=True)
        expect(ran.returncode == 0, sample, f"its tests fail:\n{ran.stdout}")
        tests = 0 if group == "rust_baseline" else 1
        expect(f"running {tests} test" in ran.stdout, sample, f"expected {tests} test:\n{ran.stdout}")


def main():
    default = pathlib.Path(__file__).resolve().parent.parent / "corpus" / "attention_samples_universal.json"
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    corpus = json.loads(path.read_text(encoding="utf-8"))
    groups = {g: v for g, v in corpus.items() if not g.startswith("_")}
    if corpus.get("_format_version") != "2.0":
        errors.append("the format is not 2.0")
    if {g: len(v) for g, v in groups.items()} != COUNTS:
        errors.append(f"groups are { {g: len(v) for g, v in groups.items()} }, expected {COUNTS}")
    for group, ids in IDS.items():
        if [s["id"] for s in groups[group]] != ids:
            errors.append(f"the ids of {group} are not the published ones")
    ids = [s["id"] for v in groups.values() for s in v]
    if len(set(ids)) != len(ids):
        errors.append("an id stands there twice")
    if not any(ord(c) > 127 for s in groups["python_doctest"] + groups["rust_test"] for c in s["code"]):
        errors.append("no finished text holds a character beyond ASCII")
    place = [s["marker_char_pos"] / len(s["code"]) for g in IDS for s in groups[g]]
    if not 0.55 <= sum(place) / len(place) <= 0.65:
        errors.append(f"markers stand at {sum(place) / len(place):.2f} of the text on average, expected 0.55 to 0.65")

    rust = []
    for group, samples in groups.items():
        for sample in samples:
            check_positions(group, sample)
            if group.startswith("python"):
                check_python(group, sample)
            else:
                rust.append((group, sample))
    if shutil.which("rustc"):
        with tempfile.TemporaryDirectory() as folder:
            check_rust(rust, pathlib.Path(folder))
    else:
        print("rustc is not here: the Rust samples were not compiled")
    for e in errors:
        print(e, file=sys.stderr)
    print(f"{path.name}: {len(ids)} samples, {len(errors)} errors")
    return 1 if errors else 0


sys.exit(main())
