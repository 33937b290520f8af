"""The subjects of the two chapters that lrfused grew out of, each as a study that can be run.

    make studies                       all of them: results, pictures, docs/studies.md
    make studies ARGS=--quick          with four seeds each, into build/studies

A study is a file of this folder. It has a docstring with the claim, ``recipe``, the lines that a
user would copy, ``run(seeds, device)``, ``check(result)``, ``plot(result)``; see common/study.py.
"""
