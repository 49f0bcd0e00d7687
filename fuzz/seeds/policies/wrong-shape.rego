package surefoot.some
deny := {1: "x"}
warn contains {"msg": 7}
defaults contains {"path": "x"}
