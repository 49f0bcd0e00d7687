module surefoot.dev/demo/digits

go 1.25.0
