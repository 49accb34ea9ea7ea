"""The pages of ``docs/reference``: each ``NAME.py`` here makes ``NAME.md`` beside it from the code.

``python -m docs.reference`` (`make reference`) writes them; ``tests/docs/test_reference.py`` fails where a page is not
what the code says. Texts come from help lines, docstrings and tables of the code: mend them there.
"""
