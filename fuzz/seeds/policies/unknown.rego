package surefoot.some
deny contains "x" if contians(input.a, "b")
