// cpu: neoverse-n1 max
// Watchpoints on what works on whole blocks: DC ZVA, which is a store but no cache maintenance, and DC IVAC, which is
// maintenance; on accesses by translated, tagged and crossing addresses (Arm ARM D2.10, D24.2.40, ESR_ELx.{CM, WnR}).
#include "mmu.h"

enum { MDSCR_KDE = 1 << 13, MDSCR_MDE = 1 << 15, FSC_DEBUG = 0x22, WNR_BIT = 1 << 6, CM_BIT = 1 << 8 };
enum { E = 1, EL1 = 1 << 1, EL0 = 2 << 1, LOADS = 1 << 3, STORES = 2 << 3, ALL = 0xff << 5 };
#define MASK(bits) ((uint64_t)(bits) << 24)
#define WRITE(reg, value) __asm__ volatile("msr " #reg ", %0\n isb" : : "r"((uint64_t)(value)) : "memory")

static uint8_t pages[2][4096] __attribute__((aligned(4096)));
#define PA(n) ((uint64_t)pages[n])
static volatile uint64_t hits;

static void once(struct frame *f) {
    (void)f;
    hits++;
    WRITE(dbgwcr0_el1, 0);
}
static void watch(uint64_t address, uint64_t control) {
    hits = 0;
    WRITE(dbgwvr0_el1, address);
    WRITE(dbgwcr0_el1, E | control);
}
#define UNMASKED(text, va) \
    __asm__ volatile("msr daifclr, #8\n isb\n" text "\n msr daifset, #8" : : "r"(va) : "x2", "x3", "x16", "memory")
// Does it with a watchpoint set; how often that was met.
#define HITS(text, va) ({ UNMASKED(text, va); uint64_t hits_ = hits; WRITE(dbgwcr0_el1, 0); hits_; })

static uint64_t block, area; // Size of what DC ZVA clears, where
static uint64_t zeroed(void) {
    uint64_t n = 0;
    for (uint64_t i = 0; i < 4096; i++)
        n += ((volatile uint8_t *)PA(0))[i] == 0;
    return n;
}
static void fill(void) {
    for (uint64_t i = 0; i < 4096; i++)
        ((volatile uint8_t *)PA(0))[i] = 0x5a;
}

static uint64_t early; // Bytes cleared when the exception came
static void look(struct frame *f) {
    once(f);
    early = zeroed();
}

// DC ZVA: what is told is of the bytes accessed, at most the last one watched; the exception comes before anything is
// cleared, and all of it is afterwards.
static void zero_met(uint64_t at, uint64_t last) {
    CHECK_EQ(HITS("dc zva, %0", at), 1);
    CHECK_EQ(caught.esr, ESR(EC_WATCHPOINT, WNR_BIT | FSC_DEBUG));
    CHECK(caught.far >= area && caught.far <= last);
    CHECK_EQ(early, 0);
    CHECK_EQ(zeroed(), block);
    fill();
}
static void zero_missed(uint64_t at) {
    CHECK_EQ(HITS("dc zva, %0", at), 0);
    CHECK_EQ(zeroed(), block);
    fill();
}

static void zero(void) {
    on_debug = look;
    fill();
    // Any part of the block, whichever byte of it the instruction names.
    for (uint64_t at = 0; at < block; at += block / 4 - 1)
        for (uint64_t watched = 0; watched < block; watched += block / 8) {
            watch(area + watched, EL1 | STORES | ALL);
            zero_met(area + at, area + watched + 7);
            watch(area + watched, EL1 | STORES | LOADS | 1 << 12); // The last byte of eight
            zero_met(area + at, area + watched + 7);
        }
    // Not those before and behind, nor if loads are watched, or EL0.
    watch(area - 8, EL1 | STORES | ALL);
    zero_missed(area);
    watch(area + block, EL1 | STORES | ALL);
    zero_missed(area + block - 1);
    watch(area, EL1 | LOADS | ALL);
    zero_missed(area);
    watch(area, EL0 | STORES | ALL);
    zero_missed(area);
    // Ranges: inside the block, all of it and more, the page of the next block.
    watch(area + block - 8, EL1 | STORES | ALL | MASK(3));
    zero_met(area, area + block - 1);
    watch(area, EL1 | STORES | ALL | MASK(12));
    zero_met(area + 9, area + block - 1);
    watch(area + block, EL1 | STORES | ALL | MASK(4));
    zero_missed(area);
    on_debug = once;
}

// What alignment and translation find wrong comes before a watchpoint (D1.3.5).
#define FAILS(text, va, iss)                                     \
    do {                                                         \
        watch((va) & ~7ul, EL1 | LOADS | STORES | ALL);          \
        CHECK_EQ(SYNDROME(HITS(text, va)), ESR(EC_DABORT, iss)); \
        CHECK_EQ(hits, 0);                                       \
    } while (0)
static void to_x16(struct frame *f) { resume = f->x[16]; }
static void order(void) {
    uint64_t read_only = PLAY + 0x2000, nowhere = PLAY + 0x3000;
    FAILS("str xzr, [%0]", read_only, WNR_BIT | (FSC_PERMISSION + 3));
    FAILS("dc zva, %0", read_only, WNR_BIT | (FSC_PERMISSION + 3));
    FAILS("ldxr x2, [%0]", nowhere, FSC_TRANSLATION + 3);
    FAILS("ldr x2, [%0]", nowhere, FSC_TRANSLATION + 3);
    FAILS("sttr xzr, [%0]", nowhere, WNR_BIT | (FSC_TRANSLATION + 3));
    FAILS("str xzr, [%0, #-4]", nowhere, WNR_BIT | (FSC_PERMISSION + 3));
    FAILS("ldr x2, [%0, #-4]", nowhere, FSC_TRANSLATION + 3);
    // Across 16 aligned bytes, where none of these may be; QEMU 11 tells of LDXR as a write there, on `max`.
    FAILS("ldar x2, [%0]", area + 12, FSC_ALIGNMENT);
    FAILS("stlr x2, [%0]", area + 12, WNR_BIT | FSC_ALIGNMENT);
    FAILS("ldxr x2, [%0]", area + 12, FSC_ALIGNMENT);
    FAILS("ldaxp x2, x3, [%0]", area + 8, FSC_ALIGNMENT);
    // SETP, SETM, SETE [X2]!, X3!, XZR; whichever of them writes, the rest is skipped.
    if (READ_SYSREG(s3_0_c0_c6_2) >> 16 & 15) {
        on_entry = to_x16;
        FAILS("adr x16, 1f\n mov x2, %0\n mov x3, #16\n .inst 0x19df0462, 0x19df4462, 0x19df8462\n1:", read_only,
              WNR_BIT | (FSC_PERMISSION + 3));
        on_entry = 0;
        resume = 0;
    }
    watch(area + 8, EL1 | LOADS | ALL);
    CHECK_EQ(HITS("ldaxp w2, w3, [%0]", area + 8), 1);
    watch(read_only, EL1 | LOADS | ALL);
    CHECK_EQ(HITS("ldr x2, [%0]", read_only), 1);
}

// Unprivileged accesses are EL0's, unless PSTATE.UAO.
#define SET_UAO(v) __asm__ volatile(".inst 0xd500407f | " #v " << 8" : : : "memory")
static void unprivileged(void) {
    for (int uao = 0; uao < 2; uao++) {
        if (uao)
            SET_UAO(1);
        watch(area, EL1 | STORES | ALL);
        CHECK_EQ(HITS("sttr xzr, [%0]", area), uao);
        watch(area, EL0 | STORES | ALL);
        CHECK_EQ(HITS("sttr xzr, [%0]", area), !uao);
        watch(area, EL0 | LOADS | ALL);
        CHECK_EQ(HITS("ldtr x2, [%0]\n ldr x2, [%0]", area), !uao);
    }
    SET_UAO(0);
}

// DC IVAC is a store of the cache's line for watchpoints, and maintenance; it tells the address that it was given. Other
// maintenance is not watched; in QEMU 11 none is.
static void maintenance(void) {
    uint64_t line = 4ul << (READ_SYSREG(ctr_el0) >> 16 & 15);
    for (uint64_t at = 0; at < line; at += line / 4 - 1) {
        watch(area + line + line - 8, EL1 | STORES | ALL);
        CHECK_EQ(HITS("dc ivac, %0", area + line + at), 1);
        CHECK_EQ(caught.esr, ESR(EC_WATCHPOINT, CM_BIT | WNR_BIT | FSC_DEBUG));
        CHECK_EQ(caught.far, area + line + at);
    }
    watch(area, EL1 | STORES | ALL);
    CHECK_EQ(HITS("dc ivac, %0", area + line), 0);
    watch(area + line, EL1 | STORES | ALL);
    CHECK_EQ(HITS("dc ivac, %0", area), 0);
    watch(area, EL1 | LOADS | ALL);
    CHECK_EQ(HITS("dc ivac, %0", area), 0);
    watch(area, EL1 | LOADS | STORES | ALL);
    CHECK_EQ(HITS("dc cvac, %0\n dc cvau, %0\n dc civac, %0\n prfm pstl1keep, [%0]\n at s1e1w, %0", area), 0);
}

// Addresses are virtual ones without their tags (in QEMU 11 with them); of one page seen twice only the one that is watched.
static void addresses(void) {
    uint64_t other = area + 0x1000, tag = 0x5aul << 56;
    watch(area + 16, EL1 | STORES | ALL);
    CHECK_EQ(HITS("str xzr, [%0]", other + 16), 0);
    set_tcr(TCR_BASE | TCR_TBI0);
    watch(area + 16, EL1 | STORES | ALL);
    CHECK_EQ(HITS("str xzr, [%0]", area + 16 + tag), 1);
    CHECK_EQ(caught.far & ~(0xfful << 56), area + 16);
    fill();
    watch(area + 16, EL1 | STORES | ALL);
    CHECK_EQ(HITS("dc zva, %0", area + 16 + tag), 1);
    CHECK(((caught.far & ~(0xfful << 56)) - area) < 24);
    set_tcr(TCR_BASE);
    // A store that crosses into the next page is met in either, and by its first watched byte.
    uint64_t edge = area + 0x1000;
    watch(edge, EL1 | STORES | ALL);
    CHECK_EQ(HITS("str xzr, [%0]", edge - 4), 1);
    CHECK(caught.far >= edge - 4 && caught.far <= edge + 3);
    CHECK_EQ(caught.esr, ESR(EC_WATCHPOINT, WNR_BIT | FSC_DEBUG));
    watch(edge - 8, EL1 | LOADS | ALL);
    CHECK_EQ(HITS("ldp x2, x3, [%0]", edge - 4), 1);
    CHECK_EQ(caught.esr, ESR(EC_WATCHPOINT, FSC_DEBUG));
    watch(edge, EL1 | STORES | ALL);
    CHECK_EQ(HITS("str xzr, [%0]", edge - 8), 0);
}

int main(void) {
    block = 4ul << (READ_SYSREG(dczid_el0) & 15);
    area = PLAY; // Behind it is the same page again, before it none
    mmu_tables();
    play3[0] = play3[1] = PA(0) | NORMAL | AP_EL0 | PAGE;
    play3[2] = PA(1) | NORMAL | AP_RO | PAGE;
    mmu_on();
    WRITE(oslar_el1, 0);
    WRITE(mdscr_el1, MDSCR_KDE | MDSCR_MDE);
    zero();
    maintenance();
    addresses();
    order();
    unprivileged();
    return finish("watch");
}
