package surefoot.some
deny contains msg if msg := concat("", [x | some y in numbers.range(1, 100); x := sprintf("%v", [input])])
