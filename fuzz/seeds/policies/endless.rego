package surefoot.some
deny contains "x" if count([1 | some x in numbers.range(1, 3000); some y in numbers.range(1, 3000); x == y]) > 1
