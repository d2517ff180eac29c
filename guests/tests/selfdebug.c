// Self-hosted debug: what breakpoints, watchpoints and software step match, and what their exceptions tell (Arm ARM
// D2.8 to D2.12, D24.2.40).
#include "test.h"

enum { MDSCR_SS = 1, MDSCR_KDE = 1 << 13, MDSCR_MDE = 1 << 15 };
enum { SPSR_SS = 1 << 21, SPSR_D = 1 << 9, SPSR_IL = 1 << 20 };
enum { FSC_DEBUG = 0x22, ISV = 1 << 24, EX = 1 << 6, WNR_BIT = 1 << 6, CM_BIT = 1 << 8 };
enum { E = 1, EL1 = 1 << 1, EL0 = 2 << 1, BAS = 15 << 5, LINKED = 1 << 20, CONTEXT = 2 << 20, LINKED_CONTEXT = 3 << 20 };
#define LBN(n) ((uint64_t)(n) << 16)
#define WRITE(reg, value) __asm__ volatile("msr " #reg ", %0\n isb" : : "r"((uint64_t)(value)) : "memory")
#define UNMASKED(...) do { __asm__ volatile("msr daifclr, #8" : : : "memory"); __VA_ARGS__; __asm__ volatile("msr daifset, #8" : : : "memory"); } while (0)

static volatile uint64_t hits;
static volatile uint64_t context_number; // Of the context-aware breakpoint

static void write_context(uint64_t value, uint64_t control) {
    // The last ones are those that know contexts.
    if (context_number == 5) {
        WRITE(dbgbvr5_el1, value);
        WRITE(dbgbcr5_el1, control);
    } else {
        WRITE(dbgbvr3_el1, value);
        WRITE(dbgbcr3_el1, control);
    }
}

static void once(struct frame *f) {
    (void)f;
    hits++;
    WRITE(dbgbcr0_el1, 0);
    WRITE(dbgwcr0_el1, 0);
}

extern char here[];
// Passes a place; tells how often a breakpoint was met.
__attribute__((noinline)) static uint64_t pass(void) {
    hits = 0;
    UNMASKED(__asm__ volatile("nop\n .global here\nhere: nop\n nop" : : : "memory"));
    return hits;
}
static uint64_t break_here(uint64_t control) {
    WRITE(dbgbvr0_el1, here);
    WRITE(dbgbcr0_el1, control);
    uint64_t n = pass();
    WRITE(dbgbcr0_el1, 0);
    return n;
}

static void breakpoints(void) {
    on_debug = once;
    WRITE(mdscr_el1, MDSCR_KDE | MDSCR_MDE);
    CHECK_EQ(break_here(E | EL1 | BAS), 1);
    CHECK_EQ(caught.esr, ESR(EC_BREAKPOINT, FSC_DEBUG));
    CHECK_EQ(caught.elr, (uint64_t)here);
    // The low two bits of the address do not exist.
    WRITE(dbgbvr0_el1, (uint64_t)here | 3);
    WRITE(dbgbcr0_el1, E | EL1 | BAS);
    CHECK_EQ(pass(), 1);
    // For each security state: 2 is Secure only, which this is not.
    CHECK_EQ(break_here(E | EL1 | BAS | 1 << 14), 1);
    CHECK_EQ(break_here(E | EL1 | BAS | 2 << 14), 0);
    CHECK_EQ(break_here(E | BAS), 0);
    // The OS lock stops them all; not in QEMU 11.
    WRITE(oslar_el1, 1);
    CHECK_EQ(READ_SYSREG(oslsr_el1) >> 1 & 1, 1);
    CHECK_EQ(break_here(E | EL1 | BAS), 0);
    WRITE(oslar_el1, 0);
    CHECK_EQ(READ_SYSREG(oslsr_el1) >> 1 & 1, 0);
    // Linked to a context: both must match.
    uint64_t linked = E | EL1 | BAS | LINKED | LBN(context_number);
    write_context(0x1234, E | LINKED_CONTEXT | EL1 | BAS);
    WRITE(contextidr_el1, 0x1234);
    CHECK_EQ(break_here(linked), 1);
    WRITE(contextidr_el1, 0x1235);
    CHECK_EQ(break_here(linked), 0);
    WRITE(contextidr_el1, 0x1234);
    write_context(0x1234, 0);
    CHECK_EQ(break_here(linked), 0); // Disabled
    // A linked context by itself is none.
    write_context(0x1234, E | LINKED_CONTEXT | EL1 | BAS);
    CHECK_EQ(pass(), 0);
    write_context(0, 0);
}

static uint64_t words[8] __attribute__((aligned(64)));
enum { LOADS = 1 << 3, STORES = 2 << 3, ALL = 0xff << 5 };

#define WATCH(address, control, ...)                 \
    ({                                               \
        hits = 0;                                    \
        WRITE(dbgwvr0_el1, address);                 \
        WRITE(dbgwcr0_el1, E | EL1 | (control));     \
        UNMASKED(__VA_ARGS__);                       \
        WRITE(dbgwcr0_el1, 0);                       \
        hits;                                        \
    })
#define ON(text, address) __asm__ volatile(".arch armv8.2-a\n mov x2, #0\n mov x3, #0\n" text : : "r"(address) : "x2", "x3", "x4", "memory")

static void watchpoints(void) {
    uint64_t at = (uint64_t)words;
    on_debug = once;
    WRITE(mdscr_el1, MDSCR_KDE | MDSCR_MDE);
    // Each byte of BAS, by bytes.
    for (uint64_t bas = 0; bas < 8; bas++)
        for (uint64_t byte = 0; byte < 8; byte++) {
            uint64_t target = at + byte;
            CHECK_EQ(WATCH(at, STORES | 1 << (5 + bas), ON("strb w2, [%0]", target)), bas == byte);
            if (bas == byte) {
                CHECK_EQ(caught.far, target);
                CHECK_EQ(caught.esr, ESR(EC_WATCHPOINT, WNR_BIT | FSC_DEBUG));
            }
        }
    // A doubleword's watchpoint with an address of a word's: BAS reaches over four bytes.
    CHECK_EQ(WATCH(at + 4, LOADS | 0xf << 5, ON("ldr w2, [%0]", at)), 0);
    CHECK_EQ(WATCH(at + 4, LOADS | 0xf << 5, ON("ldr w2, [%0, #4]", at)), 1);
    CHECK_EQ(caught.esr, ESR(EC_WATCHPOINT, FSC_DEBUG));
    // Every size of MASK: first and last byte in, neighbours out.
    for (uint64_t mask = 3; mask < 6; mask++) {
        uint64_t size = 1ul << mask, base = at + 64 - size;
        uint64_t control = STORES | ALL | mask << 24;
        CHECK_EQ(WATCH(base, control, ON("strb w2, [%0]", base)), 1);
        CHECK_EQ(WATCH(base, control, ON("strb w2, [%0]", base + size - 1)), 1);
        CHECK_EQ(WATCH(base, control, ON("strb w2, [%0]", base - 1)), 0);
    }
    // Accesses that update memory count as reads if reading is watched (ESR_ELx.WnR).
    CHECK_EQ(WATCH(at, LOADS | STORES | ALL, ON("ldadd x2, x3, [%0]", at)), 1);
    CHECK_EQ(caught.esr, ESR(EC_WATCHPOINT, FSC_DEBUG));
    CHECK_EQ(WATCH(at, STORES | ALL, ON("ldadd x2, x3, [%0]", at)), 1);
    CHECK_EQ(caught.esr, ESR(EC_WATCHPOINT, WNR_BIT | FSC_DEBUG));
    CHECK_EQ(WATCH(at + 8, STORES | ALL, ON("mov x4, #0\n casp x2, x3, x2, x3, [%0]", at)), 1);
    CHECK_EQ(WATCH(at, LOADS | ALL, ON("swp x2, x3, [%0]", at)), 1);
    CHECK_EQ(caught.esr, ESR(EC_WATCHPOINT, FSC_DEBUG));
    CHECK_EQ(WATCH(at, STORES | ALL, ON("ldxr x2, [%0]\n stxr w3, x2, [%0]", at)), 1);
    CHECK_EQ(WATCH(at, STORES | ALL, ON("stlr x2, [%0]", at)), 1);
    CHECK_EQ(WATCH(at, LOADS | ALL, ON("ldar x2, [%0]", at)), 1);
    // Unprivileged accesses are EL0's.
    CHECK_EQ(WATCH(at, STORES | ALL, ON("sttr x2, [%0]", at)), 0);
    hits = 0;
    WRITE(dbgwcr0_el1, E | EL0 | STORES | ALL);
    UNMASKED(ON("sttr x2, [%0]\n str x2, [%0]", at));
    CHECK_EQ(hits, 1);
    WRITE(dbgwcr0_el1, 0);
    // No access is: prefetch, maintenance other than invalidation.
    CHECK_EQ(WATCH(at, LOADS | STORES | ALL, ON("prfm pldl1keep, [%0]\n dc cvac, %0\n dc civac, %0\n dc cvau, %0", at)), 0);
    // The second element of a pair, a later register of a structure.
    CHECK_EQ(WATCH(at + 8, STORES | ALL, ON("stp x2, x3, [%0]", at)), 1);
    WRITE(cpacr_el1, 3 << 20);
    CHECK_EQ(WATCH(at + 40, LOADS | ALL, ON("ld1 {v0.2d-v2.2d}, [%0]", at)), 1);
    CHECK_EQ(WATCH(at + 40, STORES | ALL, ON("st3 {v0.16b-v2.16b}, [%0]", at)), 1);
    // Nothing was done when the exception came.
    uint64_t x = 5;
    hits = 0;
    words[0] = 0x77;
    WRITE(dbgwvr0_el1, at);
    WRITE(dbgwcr0_el1, E | EL1 | LOADS | STORES | ALL);
    uint64_t before = caught.count;
    UNMASKED(__asm__ volatile("ldr %0, [%1], #8" : "+r"(x), "+r"(at) : : "memory"));
    CHECK_EQ(caught.count, before + 1);
    CHECK_EQ(x, 0x77);
    CHECK_EQ(at, (uint64_t)words + 8);
    // Linked to a context.
    at = (uint64_t)words;
    write_context(0x99, E | LINKED_CONTEXT | EL1 | BAS);
    WRITE(contextidr_el1, 0x99);
    CHECK_EQ(WATCH(at, STORES | ALL | LINKED | LBN(context_number), ON("str x2, [%0]", at)), 1);
    WRITE(contextidr_el1, 0x98);
    CHECK_EQ(WATCH(at, STORES | ALL | LINKED | LBN(context_number), ON("str x2, [%0]", at)), 0);
    write_context(0, 0);
}

// Software step: a trail of where and what each exception told.
enum { TRAIL = 16 };
static struct { uint64_t elr, iss, spsr; } trail[TRAIL];
static volatile uint64_t steps, wanted;
static void stepped(struct frame *f) {
    if (EC(f->esr) == EC_STEP || EC(f->esr) == EC_STEP_LOWER) {
        if (steps < TRAIL) {
            trail[steps].elr = f->elr;
            trail[steps].iss = ISS(f->esr);
            trail[steps].spsr = f->spsr;
        }
        steps++;
        if (steps < wanted) {
            f->spsr |= SPSR_SS;
        } else {
            WRITE(mdscr_el1, 0);
            f->elr = resume;
            f->spsr = 0x3c5;
        }
    }
}
// Goes to `code` with SS in SPSR as told, and step on; the code ends with BRK 0x7e, and comes back.
static void from_steps(struct frame *f) {
    if (EC(f->esr) == EC_BRK && ISS(f->esr) == 0x7e) {
        WRITE(mdscr_el1, 0);
        f->spsr = 0x3c5;
    }
}
static uint64_t run_steps(uint64_t code, uint64_t count, uint64_t spsr) {
    steps = 0;
    wanted = count;
    on_debug = stepped;
    on_entry = from_steps;
    WRITE(mdscr_el1, MDSCR_SS | MDSCR_KDE);
    __asm__ volatile("adr x0, 1f\n str x0, [%0]\n msr spsr_el1, %1\n msr elr_el1, %2\n mov x0, %3\n eret\n1:"
                     : : "r"(&resume), "r"(spsr), "r"(code), "r"(words) : "x0", "x1", "x2", "x3", "x4", "x5", "memory", "cc");
    resume = 0;
    on_entry = 0;
    WRITE(mdscr_el1, 0);
    __asm__ volatile("msr daifset, #15");
    return steps;
}
// Code that ends the run by itself, if the steps do not.
#define CODE(text) ({ uint64_t f_; __asm__ volatile("b 2f\n1: " text "\n brk #0x7e\n2: adr %0, 1b" : "=r"(f_)); f_; })
enum { STEPPING = 0x1c5 | SPSR_SS, PENDING = 0x1c5 }; // EL1h, D clear

static void software_step(void) {
    // What was stepped, and whether it was a load-exclusive.
    uint64_t code = CODE("ldxr x1, [x0]\n nop\n ldaxp x1, x2, [x0]\n ldar x1, [x0]\n clrex\n b .+4\n ldxrb w1, [x0]");
    CHECK_EQ(run_steps(code, 7, STEPPING), 7);
    static const uint64_t told[7] = {EX, 0, EX, 0, 0, 0, EX};
    for (uint64_t i = 0; i < 7; i++) {
        CHECK_EQ(trail[i].elr, code + 4 * (i + 1));
        CHECK_EQ(trail[i].iss, ISV | told[i] | FSC_DEBUG);
        CHECK_EQ(trail[i].spsr & SPSR_SS, 0);
    }
    // A return with SS clear steps nothing: the exception is there before the first instruction, and says so.
    CHECK_EQ(run_steps(code, 1, PENDING), 1);
    CHECK_EQ(trail[0].elr, code);
    CHECK_EQ(trail[0].iss, FSC_DEBUG);
    // A branch to itself is stepped over and over.
    code = CODE("b .");
    CHECK_EQ(run_steps(code, 1, STEPPING), 1);
    CHECK_EQ(trail[0].elr, code);
    CHECK_EQ(trail[0].iss, ISV | FSC_DEBUG);
    // Step comes before everything else that is wrong with the next instruction: its alignment, its state.
    code = CODE("mov x1, #2\n adr x2, .\n add x2, x2, x1\n br x2");
    CHECK_EQ(run_steps(code, 4, STEPPING), 4);
    CHECK_EQ(trail[3].elr, code + 4 + 2);
    code = CODE("nop");
    CHECK_EQ(run_steps(code, 1, PENDING | SPSR_IL), 1);
    CHECK_EQ(trail[0].elr, code);
    CHECK_EQ(trail[0].spsr & SPSR_IL, SPSR_IL);
}

static void step_el0(void) {
    static uint64_t code;
    code = CODE("mov x1, #1\n mov x2, #2\n ldxr x3, [x0]\n nop");
    CHECK_EQ(run_steps(code, 3, 0x3c0 | SPSR_SS), 3); // D is set, which means nothing at EL0
    CHECK_EQ(trail[0].elr, code + 4);
    CHECK_EQ(trail[2].iss, ISV | EX | FSC_DEBUG);
    CHECK_EQ(trail[2].spsr & 0x1f, 0);
}

// A breakpoint, a bad address and a state that is illegal, at one instruction: PC alignment first, then what cannot be
// fetched, the breakpoint, the state (D1.3.5, synchronous exception prioritization).
static void order(void) {
    on_debug = once;
    hits = 0;
    WRITE(mdscr_el1, MDSCR_KDE | MDSCR_MDE);
    uint64_t code = CODE("nop");
    WRITE(dbgbvr0_el1, code);
    WRITE(dbgbcr0_el1, E | EL1 | BAS);
    uint64_t before = caught.count;
    __asm__ volatile("adr x0, 1f\n str x0, [%0]\n msr spsr_el1, %1\n msr elr_el1, %2\n eret\n1: msr daifset, #15"
                     : : "r"(&resume), "r"(0x1c5 | SPSR_IL), "r"(code) : "x0", "memory");
    resume = 0;
    CHECK_EQ(hits, 1);
    CHECK_EQ(caught.count, before + 2);
    CHECK_EQ(caught.esr, ESR(EC_ILLEGAL, 0));
    WRITE(dbgbcr0_el1, 0);
    WRITE(mdscr_el1, 0);
}

int main(void) {
    WRITE_SYSREG(sctlr_el1, READ_SYSREG(sctlr_el1) & ~(3ul << 3));
    context_number = READ_SYSREG(id_aa64dfr0_el1) >> 12 & 15;
    WRITE(oslar_el1, 0);
    breakpoints();
    watchpoints();
    software_step();
    step_el0();
    order();
    return finish("selfdebug");
}
