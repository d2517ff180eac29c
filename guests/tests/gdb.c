// smp: 2
// A program for a debugger to look at: registers with known values, places to stop at, memory that is not where its
// address says, a CPU that counts on its own. Left alone it goes through all of that and ends.
#include "mmu.h"

enum { TICK = 62500 }; // 1 ms
volatile uint64_t ticks, other_counter, online, enough, linger, spins, exit_status;
volatile uint64_t watched[8] __attribute__((aligned(64)));
uint8_t hidden[4096] __attribute__((aligned(4096)));
uint64_t first_result, second_result;

uint64_t patched(void);
void known_registers(void);
void steps(void);
void accesses(volatile uint64_t *p);

__asm__(
    "        .text\n"
    // Every general and vector register has a value of its own at known_here.
    "        .global known_registers, known_here\n"
    "known_registers:\n"
    "        stp x19, x20, [sp, #-96]!\n stp x21, x22, [sp, #16]\n stp x23, x24, [sp, #32]\n"
    "        stp x25, x26, [sp, #48]\n stp x27, x28, [sp, #64]\n stp x29, x30, [sp, #80]\n"
    "        .arch_extension simd\n"
    "        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    "        mov x1, #0x1000 + \\n\n fmov d\\n, x1\n mov x1, #0x2000 + \\n\n fmov v\\n\\().d[1], x1\n"
    "        .endr\n"
    "        mov x1, #0x1000000\n msr fpcr, x1\n mov x1, #0x10\n msr fpsr, x1\n"
    "        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30\n"
    "        mov x\\n, #0x0101010101010101 * (\\n + 1) & 0xffff\n movk x\\n, #\\n, lsl #48\n"
    "        .endr\n"
    "        cmp x0, x0\n"
    "known_here:\n"
    "        nop\n"
    "        msr fpcr, xzr\n"
    "        ldp x29, x30, [sp, #80]\n ldp x27, x28, [sp, #64]\n ldp x25, x26, [sp, #48]\n"
    "        ldp x23, x24, [sp, #32]\n ldp x21, x22, [sp, #16]\n ldp x19, x20, [sp], #96\n"
    "        ret\n"
    // Instructions of every kind that a step may meet.
    "        .global steps, step_branch, step_svc, step_wfe, step_back\n"
    "steps:  mov x0, #0\n"
    "        add x0, x0, #1\n"
    "        cbz x0, 1f\n"
    "        b step_branch\n"
    "1:      add x0, x0, #100\n"
    "step_branch:\n"
    "        mov x1, #3\n"
    "2:      subs x1, x1, #1\n"
    "        b.ne 2b\n"
    "step_svc:\n"
    "        svc #7\n"
    "        sevl\n"
    "        wfe\n"
    "step_wfe:\n"
    "        isb\n"
    "        mrs x2, currentel\n"
    "step_back:\n"
    "        ret\n"
    // Accesses by the address in X0.
    "        .global accesses, store_word, load_word, store_byte, load_pair, add_atomic, accesses_end\n"
    "        .arch_extension lse\n"
    "accesses:\n"
    "        mov x1, #0x55\n"
    "store_word:\n str w1, [x0]\n"
    "load_word:\n ldr w2, [x0, #8]\n"
    "store_byte:\n strb w1, [x0, #19]\n"
    "load_pair:\n ldp x2, x3, [x0, #32]\n"
    "        add x4, x0, #56\n"
    "add_atomic:\n ldadd x1, x2, [x4]\n nop\n"
    "accesses_end:\n ret\n"
    // To be changed by the debugger between two calls.
    "        .global patched\n"
    "patched: mov x0, #1\n"
    "        ret\n");

static void tick(uint32_t intid) {
    WRITE_SYSREG(cntv_tval_el0, TICK);
    ticks = ticks + 1;
    ICC_WRITE(EOIR1, intid);
}

void other_cpu(void) {
    mmu_on();
    online = 1;
    while (!enough)
        other_counter = other_counter + 1;
    online = 0;
}

// Interrupts come all the time here.
__attribute__((noinline)) void spin(void) {
    on_irq = tick;
    gic_setup();
    gic_enable(INTID_TIMER_VIRTUAL, 0x80);
    WRITE_SYSREG(cntv_tval_el0, TICK);
    WRITE_SYSREG(cntv_ctl_el0, 1ul);
    irq_unmask();
    while (ticks < 3 || linger)
        spins = spins + 1;
    irq_mask();
    WRITE_SYSREG(cntv_ctl_el0, 0ul);
}

__attribute__((noinline)) void between(void) { __asm__ volatile(""); }

int main(void) {
    mmu_tables();
    play3[0] = (uint64_t)hidden | NORMAL | PAGE;
    play3[1] = UART | DEVICE | PAGE;
    mmu_on();
    for (int i = 0; i < 4096; i++)
        hidden[i] = (uint8_t)(i * 7);
    cpu_start(1, other_cpu);
    while (!online) {
    }
    known_registers();
    steps();
    accesses(watched);
    first_result = patched();
    between();
    second_result = patched();
    spin();
    enough = 1;
    while (online) {
    }
    CHECK_EQ(first_result, 1);
    CHECK_EQ(watched[0], 0x55);
    CHECK_EQ(watched[7], 0x55);
    return finish("gdb") + (int)exit_status;
}
