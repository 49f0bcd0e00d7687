package surefoot.some_test

test_x if true
