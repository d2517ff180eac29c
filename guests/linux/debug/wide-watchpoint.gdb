set width 0
break main
run
# Four accesses: gdb steps over an exclusive pair as a whole.
awatch wide.watched
set $n = 0
commands
silent
set $n = $n + 1
printf "at "
info symbol $pc
continue
end
break _exit
continue
printf "hits %d\n", $n
continue
