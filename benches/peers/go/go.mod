module onceloop-peers-go

go 1.19
