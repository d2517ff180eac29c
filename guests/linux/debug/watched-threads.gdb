set width 0
break main
run
awatch shared
set $n = 0
commands
silent
set $n = $n + 1
continue
end
break _exit
continue
printf "hits %d\n", $n
continue
