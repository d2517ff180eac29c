set width 0
break *meet
run
info threads
thread apply all backtrace 2
printf "threads %d\n", $_inferior_thread_count
# The others stand still.
set scheduler-locking on
set $thread = $x0
set $met = met[$thread]
set $total = total
continue
continue
continue
printf "alone %d %d\n", met[$thread] - $met, total - $total
set scheduler-locking off
set $n = 4
commands 1
silent
set $n = $n + 1
continue
end
break _exit
continue
printf "hits %d\n", $n
printf "total %d\n", total
continue
