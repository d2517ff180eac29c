set width 0
break *ladder
run
# The move before the additions, then 200 of them.
stepi 201
printf "ladder %d %d\n", $x0, ((long)$pc - (long)&ladder) / 4 - 1
break *call
continue
# Linux tells of the system call's step twice: at the call's end, and when the program goes on.
stepi 5
printf "call %d %d\n", $x1, ((long)$pc - (long)&call) / 4
continue
