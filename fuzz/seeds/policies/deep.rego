package surefoot.some
deny contains "x" if [[[[[[[[[[[]]]]]]]]]]]
