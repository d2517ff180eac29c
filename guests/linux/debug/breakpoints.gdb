set width 0
break main
run
tbreak deep if n == 0
break write_all
set $soft = 0
commands
silent
set $soft = $soft + 1
continue
end
hbreak read_all
set $hard = 0
commands
silent
set $hard = $hard + 1
continue
end
continue
backtrace
finish
finish
printf "hits %d %d\n", $soft, $hard
continue
