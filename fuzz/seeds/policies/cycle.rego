package surefoot.some
a if b
b if a
