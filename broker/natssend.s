// This file lets natssend.go declare a function that has its body elsewhere.
