"""Measures of pictures: pure functions of arrays, a file for each kind of question. Suites say of which pictures."""
