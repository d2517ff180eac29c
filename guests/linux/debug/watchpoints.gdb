# KIND is watch, rwatch or awatch.
set width 0
break main
run
KIND cell.one
set $n0 = 0
commands
silent
set $n0 = $n0 + 1
continue
end
KIND cell.two
set $n1 = 0
commands
silent
set $n1 = $n1 + 1
continue
end
KIND cell.four
set $n2 = 0
commands
silent
set $n2 = $n2 + 1
continue
end
KIND cell.eight
set $n3 = 0
commands
silent
set $n3 = $n3 + 1
continue
end
break _exit
continue
printf "hits %d %d %d %d\n", $n0, $n1, $n2, $n3
continue
