// Page tables for the test guests: the program and devices stay where they are; pages to play with elsewhere.
#ifndef MMU_H
#define MMU_H

#include "test.h"

// Descriptor bits (Arm ARM D8.3).
enum { VALID = 1, TABLE = 3, PAGE = 3, BLOCK = 1 };
#define ATTR(n) ((uint64_t)(n) << 2)
#define AP_EL0 (1ul << 6)
#define AP_RO (1ul << 7)
#define SH_INNER (3ul << 8)
#define AF (1ul << 10)
#define NG (1ul << 11)
#define DBM (1ul << 51)
#define CONTIGUOUS (1ul << 52)
#define PXN (1ul << 53)
#define UXN (1ul << 54)
#define APTABLE_RO (1ul << 62)
#define NORMAL (ATTR(0) | SH_INNER | AF)
#define DEVICE (ATTR(1) | AF | PXN | UXN)

// TCR_EL1: 48-bit addresses, write-back walks, 4 KiB granule in both halves, 40-bit physical addresses.
#define TCR_BASE (16ul | 1ul << 8 | 1ul << 10 | 3ul << 12 | 16ul << 16 | 1ul << 24 | 1ul << 26 | 3ul << 28 | 2ul << 30 | 2ul << 32)
#define TCR_EPD1 (1ul << 23)
#define TCR_TBI0 (1ul << 37)
#define TCR_HA (1ul << 39)
#define TCR_HD (1ul << 40)
#define TCR_HPD0 (1ul << 41)
enum { SCTLR_M = 1, SCTLR_A = 2, SCTLR_C = 4, SCTLR_I = 1 << 12, SCTLR_WXN = 1 << 19, SCTLR_SPAN = 1 << 23 };

typedef uint64_t table[512] __attribute__((aligned(4096)));

// Where things are seen.
#define PLAY 0x8000000000ul                   // The second entry of level 0: pages to play with
#define USER_CODE (0x10000000000ul)           // The program, for EL0 to execute
#define USER_DATA (0x10000000000ul + (2ul << 30)) // The program, for EL0 to read and write

static table root_a, root_b, root_high, level1, level1_user, play1, play2, play3, other1, other2, other3, high1, high2, high3;

static inline void tlbi_all(void) { __asm__ volatile("dsb ishst\n tlbi vmalle1is\n dsb ish\n isb" : : : "memory"); }
static inline void tlbi_page(uint64_t va, uint64_t asid) {
    uint64_t operand = (va >> 12 & 0xfffffffffff) | asid << 48;
    __asm__ volatile("dsb ishst\n tlbi vae1is, %0\n dsb ish\n isb" : : "r"(operand) : "memory");
}
// Makes a table entry visible to the walker, without invalidating anything.
static inline void published(void) { __asm__ volatile("dsb ish\n isb" : : : "memory"); }

static inline void set_tcr(uint64_t tcr) {
    WRITE_SYSREG(tcr_el1, tcr);
    ISB();
    tlbi_all();
}

static inline void mmu_on(void) {
    WRITE_SYSREG(mair_el1, 0x4400ff);
    WRITE_SYSREG(tcr_el1, TCR_BASE);
    WRITE_SYSREG(ttbr0_el1, (uint64_t)root_a);
    WRITE_SYSREG(ttbr1_el1, (uint64_t)root_high);
    ISB();
    tlbi_all();
    WRITE_SYSREG(sctlr_el1, (READ_SYSREG(sctlr_el1) & ~(uint64_t)(SCTLR_A | SCTLR_WXN)) | SCTLR_M | SCTLR_C | SCTLR_I | SCTLR_SPAN);
    ISB();
}

static inline void mmu_tables(void) {
    level1[0] = 0x00000000 | DEVICE | BLOCK;
    level1[1] = 0x40000000 | NORMAL | UXN | BLOCK;
    level1_user[1] = 0x40000000 | NORMAL | AP_EL0 | AP_RO | PXN | BLOCK;
    level1_user[3] = 0x40000000 | NORMAL | AP_EL0 | PXN | UXN | BLOCK;
    play1[0] = (uint64_t)play2 | TABLE;
    play2[0] = (uint64_t)play3 | TABLE;
    other1[0] = (uint64_t)other2 | TABLE;
    other2[0] = (uint64_t)other3 | TABLE;
    high1[0] = (uint64_t)high2 | TABLE;
    high2[0] = (uint64_t)high3 | TABLE;
    root_high[0] = (uint64_t)high1 | TABLE;
    for (int i = 0; i < 3; i += 2) {
        root_a[i] = root_b[i] = (uint64_t)(i ? level1_user : level1) | TABLE;
    }
    root_a[1] = (uint64_t)play1 | TABLE;
    root_b[1] = (uint64_t)other1 | TABLE;
    DSB();
}

#endif
