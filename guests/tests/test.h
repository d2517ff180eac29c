// Shared by the test guests: checks, caught exceptions, code at EL0. A guest's status is 0 if all checks held.
#ifndef TEST_H
#define TEST_H

#include "guest.h"

static int failures;

// Compares and tells what differs; goes on with the next check.
#define CHECK_EQ(what, expected)                                                                       \
    do {                                                                                               \
        uint64_t a_ = (uint64_t)(what), b_ = (uint64_t)(expected);                                     \
        if (a_ != b_) {                                                                                \
            print("%s:%d: " #what " is 0x%x, wanted 0x%x\n", __FILE__, (uint64_t)__LINE__, a_, b_);    \
            failures++;                                                                                \
        }                                                                                              \
    } while (0)
#define CHECK(what) CHECK_EQ(!!(what), 1)

// Exception classes (ESR_ELx.EC) and fault status codes.
enum {
    EC_UNKNOWN = 0x00, EC_WFX = 0x01, EC_FP = 0x07, EC_ILLEGAL = 0x0e, EC_SVC = 0x15, EC_SYSREG = 0x18,
    EC_IABORT_LOWER = 0x20, EC_IABORT = 0x21, EC_PC_ALIGN = 0x22, EC_DABORT_LOWER = 0x24, EC_DABORT = 0x25,
    EC_SP_ALIGN = 0x26,
    EC_BREAKPOINT_LOWER = 0x30, EC_BREAKPOINT = 0x31, EC_STEP_LOWER = 0x32, EC_STEP = 0x33,
    EC_WATCHPOINT_LOWER = 0x34, EC_WATCHPOINT = 0x35, EC_BRK = 0x3c,
};
enum { FSC_ADDRESS = 0x00, FSC_TRANSLATION = 0x04, FSC_ACCESS = 0x08, FSC_PERMISSION = 0x0c, FSC_ALIGNMENT = 0x21 };
#define EC(esr) ((esr) >> 26 & 0x3f)
#define ISS(esr) ((esr) & 0x1ffffff)
#define FSC(esr) ((esr) & 0x3f)
#define WNR(esr) ((esr) >> 6 & 1)
#define CM(esr) ((esr) >> 8 & 1)
// The whole of ESR: IL is set, as all instructions have 32 bits.
#define ESR(ec, iss) ((uint64_t)(ec) << 26 | 1ul << 25 | (uint64_t)(iss))
// ISS of a trapped MSR, MRS or system instruction: op0 [21:20], op2 [19:17], op1 [16:14], CRn [13:10], Rt [9:5],
// CRm [4:1], read [0].
static inline uint64_t sysreg_iss(uint64_t op0, uint64_t op1, uint64_t crn, uint64_t crm, uint64_t op2) {
    return op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1;
}

// The last synchronous exception, and how many there were.
static volatile struct {
    uint64_t count, vector, esr, far, elr, spsr;
} caught;
// Where to go on after an exception; 0 means behind the instruction.
static volatile uint64_t resume;
// Called for debug exceptions; they return to where they came from.
static void (*volatile on_debug)(struct frame *f);
// Called for any synchronous exception, to look at the state that it was entered with.
static void (*volatile on_entry)(struct frame *f);
// Called for interrupts.
static void (*volatile on_irq)(uint32_t intid);
// The vector of the last interrupt.
static volatile uint64_t interrupted;

// Calls `function` at EL0, where the program is seen `alias` bytes higher (0 with the MMU off).
void el0_return(void);
void el0_call_return(void);
uint64_t el0_enter(uint64_t (*function)(uint64_t), uint64_t argument, uint64_t stack, uint64_t alias);
enum { SVC_RETURN = 0x99 };

__asm__(
    ".text\n.global el0_enter\nel0_enter:\n"
    "sub sp, sp, #96\n stp x19, x20, [sp]\n stp x21, x22, [sp, #16]\n stp x23, x24, [sp, #32]\n"
    "stp x25, x26, [sp, #48]\n stp x27, x28, [sp, #64]\n stp x29, x30, [sp, #80]\n"
    "msr sp_el0, x2\n add x0, x0, x3\n msr elr_el1, x0\n mov x4, #0x3c0\n msr spsr_el1, x4\n"
    "mov x0, x1\n adr x30, el0_call_return\n add x30, x30, x3\n eret\n"
    ".global el0_call_return\nel0_call_return: svc #0x99\n"
    ".global el0_return\nel0_return:\n"
    "ldp x19, x20, [sp]\n ldp x21, x22, [sp, #16]\n ldp x23, x24, [sp, #32]\n"
    "ldp x25, x26, [sp, #48]\n ldp x27, x28, [sp, #64]\n ldp x29, x30, [sp, #80]\n add sp, sp, #96\n ret\n");

void guest_exception(struct frame *f, uint64_t vector) {
    if ((vector & 3) == 1 || (vector & 3) == 2) { // IRQ, FIQ
        uint32_t intid = (uint32_t)((vector & 3) == 1 ? ICC_READ(IAR1) : ICC_READ(IAR0));
        interrupted = vector;
        if (on_irq)
            on_irq(intid);
        return;
    }
    if (EC(f->esr) == EC_SVC && vector == VECTOR_SYNC_EL0 && (f->esr & 0xffff) == SVC_RETURN) {
        f->elr = (uint64_t)el0_return;
        f->spsr = 0x3c5;
        return;
    }
    caught.count++;
    caught.vector = vector;
    caught.esr = f->esr;
    caught.far = f->far;
    caught.elr = f->elr;
    caught.spsr = f->spsr;
    if (on_entry)
        on_entry(f);
    if (on_debug && EC(f->esr) >= EC_BREAKPOINT_LOWER && EC(f->esr) <= EC_WATCHPOINT) {
        on_debug(f);
        return;
    }
    if (caught.count > 100000) {
        print("exceptions without end: vector %d ESR 0x%x ELR 0x%x FAR 0x%x\n", vector, f->esr, f->elr, f->far);
        guest_exit(99);
    }
    if (resume)
        f->elr = resume;
    else if (EC(f->esr) != EC_SVC)
        f->elr += 4;
    f->spsr &= ~(1ul << 20 | 3ul << 10); // IL, BTYPE
}

// Runs `code` and gives the syndrome of the one exception that it takes, or ~0.
#define SYNDROME(...)                                       \
    ({                                                      \
        uint64_t before_ = caught.count;                    \
        __VA_ARGS__;                                        \
        caught.count == before_ + 1 ? caught.esr : ~0ul;    \
    })
#define ASM(...) __asm__ volatile(__VA_ARGS__ : : : "memory", "x0", "x1", "x2", "x3", "x16")

static inline int finish(const char *name) {
    print("%s: %s\n", name, failures ? "FAILED" : "ok");
    return failures != 0;
}

#endif
