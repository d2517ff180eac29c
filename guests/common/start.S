// Entry of every CPU, and the exception vectors.
//
// The first CPU arrives at _start at EL1 with the MMU off. Others are sent to secondary_start by PSCI with the
// address of the top of their stack as the context ID, and the function to call just below it.

        .section .text.start, "ax"
        .global _start
_start:
        adrp    x0, stack_top
        add     x0, x0, :lo12:stack_top
        mov     sp, x0
        bl      cpu_setup
        adrp    x0, __bss_start
        add     x0, x0, :lo12:__bss_start
        adrp    x1, __bss_end
        add     x1, x1, :lo12:__bss_end
1:      cmp     x0, x1
        b.hs    2f
        stp     xzr, xzr, [x0], #16
        b       1b
2:      bl      main
        b       guest_exit

        .global secondary_start
secondary_start:
        mov     sp, x0
        bl      cpu_setup
        ldr     x1, [sp, #-8]!
        sub     sp, sp, #8
        blr     x1
        ldr     w0, =0x84000002        // PSCI CPU_OFF
        hvc     #0
        b       .

// Floating point stays free to use; exceptions come to our vectors.
cpu_setup:
        mov     x1, #(3 << 20)
        msr     cpacr_el1, x1
        adrp    x1, vectors
        add     x1, x1, :lo12:vectors
        msr     vbar_el1, x1
        isb
        ret

// Every vector saves the caller-saved registers and the return state as a `struct frame`, calls
// guest_exception(frame, vector) and goes back.
        .macro  vector number
        .balign 128
        sub     sp, sp, #288
        stp     x0, x1, [sp, #0]
        mov     x1, #\number
        b       exception_entry
        .endm

        .text
        .balign 2048
        .global vectors
vectors:
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        vector  \n
        .endr

exception_entry:
        stp     x2, x3, [sp, #16]
        stp     x4, x5, [sp, #32]
        stp     x6, x7, [sp, #48]
        stp     x8, x9, [sp, #64]
        stp     x10, x11, [sp, #80]
        stp     x12, x13, [sp, #96]
        stp     x14, x15, [sp, #112]
        stp     x16, x17, [sp, #128]
        stp     x18, x19, [sp, #144]
        stp     x20, x21, [sp, #160]
        stp     x22, x23, [sp, #176]
        stp     x24, x25, [sp, #192]
        stp     x26, x27, [sp, #208]
        stp     x28, x29, [sp, #224]
        mrs     x2, elr_el1
        stp     x30, x2, [sp, #240]
        mrs     x3, spsr_el1
        mrs     x4, esr_el1
        stp     x3, x4, [sp, #256]
        mrs     x5, far_el1
        str     x5, [sp, #272]
        mov     x0, sp
        bl      guest_exception
        ldp     x30, x2, [sp, #240]
        msr     elr_el1, x2
        ldr     x3, [sp, #256]
        msr     spsr_el1, x3
        ldp     x2, x3, [sp, #16]
        ldp     x4, x5, [sp, #32]
        ldp     x6, x7, [sp, #48]
        ldp     x8, x9, [sp, #64]
        ldp     x10, x11, [sp, #80]
        ldp     x12, x13, [sp, #96]
        ldp     x14, x15, [sp, #112]
        ldp     x16, x17, [sp, #128]
        ldp     x18, x19, [sp, #144]
        ldp     x20, x21, [sp, #160]
        ldp     x22, x23, [sp, #176]
        ldp     x24, x25, [sp, #192]
        ldp     x26, x27, [sp, #208]
        ldp     x28, x29, [sp, #224]
        ldp     x0, x1, [sp, #0]
        add     sp, sp, #288
        eret

        .global psci
psci:   hvc     #0
        ret

        .global semihost
semihost:
        hlt     #0xf000
        ret

        .bss
        .balign 4096
        .skip   16384
stack_top:
