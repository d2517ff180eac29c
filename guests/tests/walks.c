// cpu: neoverse-n1 max
// Table walks: every granule from every level that TxSZ can make it start at, in both halves, with a fault of each
// kind at each level; blocks at each level that may have them; every combination of permissions, as accesses, as AT
// instructions and with what hierarchy takes away (Arm ARM D8.2 to D8.5).
#include "mmu.h"

#define ID_FIELD(reg, lsb) (READ_SYSREG(reg) >> (lsb) & 15)
static uint8_t target[65536] __attribute__((aligned(65536)));
// Tables of one walk, one for each level from -1 to 3, for the lower and the upper half.
static uint64_t tables[2][5][8192] __attribute__((aligned(65536)));
static uint8_t user_stack[4096] __attribute__((aligned(16)));

struct granule {
    unsigned shift, tg0, tg1;
};
static const struct granule granules[] = {{12, 0, 2}, {14, 2, 1}, {16, 1, 3}};

// In the lower half, where the program itself is, things are tried by code that sees itself in the upper half, puts the
// regime under test in force, does one thing, and goes back.
enum { PROBE_LOAD, PROBE_STORE, PROBE_AT, PROBE_CALL };
static struct { uint64_t tcr, ttbr0, va, what, esr, far, value; } request;
static bool by_probe;
#define HIGH 0xffff000000000000ul
void probe_entry(void);
__asm__(
    ".text\n.balign 2048\nprobe_vectors: .skip 0x200\n"
    "mrs x10, esr_el1\n mrs x11, far_el1\n msr elr_el1, x12\n eret\n .balign 2048\n"
    ".global probe_entry\nprobe_entry:\n"
    "mrs x2, tcr_el1\n mrs x3, ttbr0_el1\n mrs x4, vbar_el1\n mov x14, x30\n"
    "adr x5, probe_vectors\n msr vbar_el1, x5\n"
    "ldp x6, x7, [x0]\n ldp x8, x9, [x0, #16]\n mov x10, #0\n mov x11, #0\n mov x13, #0xdead\n adr x12, 5f\n"
    "dsb sy\n msr tcr_el1, x6\n msr ttbr0_el1, x7\n isb\n tlbi vmalle1\n dsb nsh\n isb\n"
    "cbz x9, 1f\n cmp x9, #2\n b.lo 2f\n b.eq 3f\n b 4f\n"
    "1: ldr x13, [x8]\n b 5f\n"
    "2: str xzr, [x8]\n b 5f\n"
    "3: at s1e1r, x8\n isb\n mrs x13, par_el1\n b 5f\n"
    "4: blr x8\n mov x13, x1\n"
    "5: msr tcr_el1, x2\n msr ttbr0_el1, x3\n msr vbar_el1, x4\n isb\n tlbi vmalle1\n dsb nsh\n isb\n"
    "stp x10, x11, [x0, #32]\n str x13, [x0, #48]\n ret x14\n");
static uint64_t probe(uint64_t what, uint64_t va) {
    request.va = va;
    request.what = what;
    register uint64_t x0 __asm__("x0") = (uint64_t)&request + HIGH;
    __asm__ volatile("blr %1" : "+r"(x0) : "r"((uint64_t)probe_entry + HIGH)
                     : "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x30", "cc", "memory");
    if (request.esr) {
        caught.count++;
        caught.esr = request.esr;
        caught.far = request.far;
    }
    return request.value;
}

static uint64_t load(uint64_t va) {
    if (by_probe)
        return probe(PROBE_LOAD, va);
    uint64_t v = 0xdead;
    __asm__ volatile("ldr %0, [%1]" : "+r"(v) : "r"(va) : "memory");
    return v;
}
static void store(uint64_t va) {
    if (by_probe)
        probe(PROBE_STORE, va);
    else
        __asm__ volatile("str xzr, [%0]" : : "r"(va) : "memory");
}

static void off(void) {
    WRITE_SYSREG(sctlr_el1, READ_SYSREG(sctlr_el1) & ~1ul);
    ISB();
}
// The program itself runs in the lower half by a granule of 4 KiB.
static void on(uint64_t tcr, uint64_t ttbr0, uint64_t ttbr1) {
    off();
    WRITE_SYSREG(mair_el1, 0x4400ff);
    WRITE_SYSREG(tcr_el1, tcr);
    WRITE_SYSREG(ttbr0_el1, ttbr0);
    WRITE_SYSREG(ttbr1_el1, ttbr1);
    ISB();
    tlbi_all();
    WRITE_SYSREG(sctlr_el1, (READ_SYSREG(sctlr_el1) & ~(uint64_t)(SCTLR_A | SCTLR_WXN)) | SCTLR_M | SCTLR_C | SCTLR_I | SCTLR_SPAN);
    ISB();
}

// What the walk of `va` looks like: level of the first lookup, and the index at each level.
static int first_level(unsigned shift, unsigned bits) { return 3 - (int)((bits - 1 - shift) / (shift - 3)); }
static uint64_t index_at(unsigned shift, unsigned bits, int level, uint64_t va) {
    unsigned low = shift + (shift - 3) * (unsigned)(3 - level);
    uint64_t in = va & ((1ul << bits) - 1);
    return in >> low & ((1ul << (shift - 3)) - 1);
}

static unsigned now_shift, now_size, now_half;
static void expect(const char *what, int level, uint64_t got, uint64_t wanted) {
    if (got != wanted) {
        print("granule 2^%d TxSZ %d half %d level %c%d: %s: got 0x%x, wanted 0x%x\n", (uint64_t)now_shift,
              (uint64_t)now_size, (uint64_t)now_half, level < 0 ? '-' : ' ', (uint64_t)(level < 0 ? -level : level), what, got, wanted);
        failures++;
    }
}

// Status codes have their own numbers for level -1.
static uint64_t status(uint64_t base, int level) {
    if (level >= 0)
        return base + (uint64_t)level;
    return base == FSC_TRANSLATION ? 0x2b : 0x29;
}
static uint64_t fault(uint64_t va) {
    uint64_t esr = SYNDROME(load(va));
    if (esr != ~0ul && caught.far != va)
        expect("FAR", 0, caught.far, va);
    return esr == ~0ul ? esr : FSC(esr);
}
// PAR_EL1 as S1E1R makes it.
static uint64_t at_s1e1r(uint64_t va) {
    if (by_probe)
        return probe(PROBE_AT, va);
    __asm__ volatile("at s1e1r, %0\n isb" : : "r"(va) : "memory");
    return READ_SYSREG(par_el1);
}

// The top byte: of an address unless TCR_EL1.TBI0, and then for data only with TBID0. What is told has it.
static void tags(uint64_t va) {
    uint64_t tcr = request.tcr, tagged = va | 0x5aul << 56, code = (va & ~0xffful) | 0x200;
    expect("a tag", 0, fault(tagged), FSC_TRANSLATION);
    expect("a tag, PAR_EL1", 0, at_s1e1r(tagged) & 0x7f, FSC_TRANSLATION << 1 | 1);
    expect("a call", 3, probe(PROBE_CALL, code), code);
    expect("a tag of a call", 0, EC(SYNDROME(probe(PROBE_CALL, code | 0x5aul << 56))), EC_IABORT);
    request.tcr = tcr | TCR_TBI0;
    expect("an ignored tag", 3, load(tagged), 0x600d);
    expect("an ignored tag, PAR_EL1", 3, at_s1e1r(tagged) & 0xfffffffff001, (uint64_t)target);
    expect("an ignored tag of a call", 3, probe(PROBE_CALL, code | 0x5aul << 56), code);
    // Bit 55 chooses the half whatever the tag; bits between it and the size do count.
    uint64_t bits = 64 - now_size;
    if (bits < 55)
        expect("beyond, with a tag", 0, fault(tagged | 1ul << (bits < 52 ? bits : 54)), FSC_TRANSLATION);
    if (ID_FIELD(id_aa64isar1_el1, 4) || ID_FIELD(id_aa64isar1_el1, 8)) { // FEAT_PAuth
        request.tcr = tcr | TCR_TBI0 | 1ul << 51;
        expect("an ignored tag, TBID0", 3, load(tagged), 0x600d);
        expect("a tag of a call, TBID0", 0, EC(SYNDROME(probe(PROBE_CALL, code | 0x5aul << 56))), EC_IABORT);
        expect("FAR", 0, caught.far, code | 0x5aul << 56);
    }
    // The whole half is switched off, for addresses inside only.
    request.tcr = tcr | 1ul << 7;
    expect("TCR_EL1.EPD0", 0, fault(va), FSC_TRANSLATION);
    request.tcr = tcr;
}

// A chain of tables down to a page; then each link is broken in each way, and each level that can have a block has one.
static void one_size(const struct granule *g, unsigned size, unsigned half, bool lpa2, int highest_block) {
    unsigned bits = 64 - size, shift = g->shift;
    int start = first_level(shift, bits);
    uint64_t va = (half ? ~0ul << bits : 0) | (0x5555555555555555 & ((1ul << bits) - 1));
    va = (va & ~((1ul << shift) - 1)) | 0x128;
    now_shift = shift;
    now_size = size;
    now_half = half;
    uint64_t leaf = (uint64_t)target | AF | ATTR(0) | (lpa2 ? 0 : SH_INNER) | PAGE;
    uint64_t *link[5];
    for (int level = start; level <= 3; level++) {
        uint64_t *table = tables[half][level + 1];
        link[level + 1] = &table[index_at(shift, bits, level, va)];
        *link[level + 1] = level == 3 ? leaf : (uint64_t)tables[half][level + 2] | TABLE;
    }
    DSB();
    tlbi_all();
    expect("a page", 3, load(va), 0x600d);
    expect("PAR_EL1", 3, at_s1e1r(va) & 0xfffffffff001, (uint64_t)target);
    for (int level = start; level <= 3; level++) {
        uint64_t *entry = link[level + 1], good = *entry;
        *entry = 0;
        DSB();
        tlbi_all();
        expect("nothing", level, fault(va), status(FSC_TRANSLATION, level));
        expect("nothing, PAR_EL1", level, at_s1e1r(va) & 0x7f, status(FSC_TRANSLATION, level) << 1 | 1);
        // What is reserved: at level 3 what would be a block, and blocks where there are none.
        if (level == 3 || level < highest_block) {
            *entry = good & ~2ul;
            DSB();
            tlbi_all();
            expect("reserved", level, fault(va), status(FSC_TRANSLATION, level));
        } else {
            unsigned low = shift + (shift - 3) * (unsigned)(3 - level);
            uint64_t base = low < 48 ? ((uint64_t)target & ~((1ul << low) - 1)) : 0;
            *entry = base | AF | (lpa2 ? 0 : SH_INNER) | BLOCK;
            DSB();
            tlbi_all();
            uint64_t in = (va & ~((1ul << low) - 1)) | ((uint64_t)target & ((1ul << low) - 1));
            expect("a block", level, load(in + 0x128), 0x600d);
            expect("a block, PAR_EL1", level, at_s1e1r(in) & 0xfffffffff001, (uint64_t)target);
            *entry = base | (lpa2 ? 0 : SH_INNER) | BLOCK; // No access flag
            DSB();
            tlbi_all();
            expect("a block, not accessed", level, fault(in), status(FSC_ACCESS, level));
            *entry = base | AF | AP_RO | (lpa2 ? 0 : SH_INNER) | BLOCK;
            DSB();
            tlbi_all();
            expect("a block, read-only", level, FSC(SYNDROME(store(in))),
                   status(FSC_PERMISSION, level));
        }
        // An address that is too large: TCR_EL1.IPS says 40 bits.
        *entry = good | 1ul << 45;
        DSB();
        tlbi_all();
        expect("too large", level, fault(va), status(FSC_ADDRESS, level));
        *entry = good;
    }
    DSB();
    tlbi_all();
    // The first address beyond the half.
    uint64_t beyond = half ? (~0ul << bits) - 8 : 1ul << bits;
    if (bits < 52)
        expect("beyond", 0, fault(beyond), FSC_TRANSLATION);
    expect("a page again", 3, load(va), 0x600d);
    if (by_probe)
        tags(va);
    for (int level = start; level <= 3; level++)
        *link[level + 1] = 0;
}

// TxSZ from the largest space to the smallest, in both halves.
static void sizes(void) {
    bool small = ID_FIELD(id_aa64mmfr2_el1, 28) >= 1; // FEAT_TTST
    bool large = ID_FIELD(id_aa64mmfr2_el1, 16) >= 1; // FEAT_LVA, for the granule of 64 KiB
    for (const struct granule *g = granules; g != granules + 3; g++) {
        uint64_t tgran = g->shift == 12 ? ID_FIELD(id_aa64mmfr0_el1, 28) : g->shift == 14 ? ID_FIELD(id_aa64mmfr0_el1, 20) : ID_FIELD(id_aa64mmfr0_el1, 24);
        bool there = g->shift == 14 ? tgran >= 1 : tgran < 8;
        bool lpa2_there = g->shift == 12 ? tgran == 1 : g->shift == 14 && tgran >= 2;
        if (!there)
            continue;
        for (int lpa2 = 0; lpa2 <= lpa2_there; lpa2++) {
            unsigned first = lpa2 || (g->shift == 16 && large) ? 12 : 16;
            unsigned last = !small ? 39 : g->shift == 16 ? 47 : 48;
            // With TCR_EL1.DS the program's descriptors change too: their shareability bits are of the address.
            uint64_t tcr = (TCR_BASE & ~(0x3ful << 16) & ~(3ul << 30)) | (uint64_t)g->tg1 << 30 | (lpa2 ? 1ul << 59 : 0);
            int highest = g->shift == 12 ? 1 - lpa2 : g->shift == 14 ? 2 - lpa2 : 2 - (ID_FIELD(id_aa64mmfr0_el1, 0) >= 6);
            for (unsigned size = first; size <= last; size++) {
                unsigned bits = 64 - size;
                int start = first_level(g->shift, bits);
                off();
                level1[1] = 0x40000000 | (NORMAL & ~(lpa2 ? SH_INNER : 0)) | UXN | BLOCK;
                on(tcr | (uint64_t)size << 16, (uint64_t)root_a, (uint64_t)tables[1][start + 1]);
                one_size(g, size, 1, lpa2, highest);
                off();
                level1[1] = 0x40000000 | NORMAL | UXN | BLOCK;
                on(TCR_BASE, (uint64_t)root_a, (uint64_t)root_high);
                request.tcr = (TCR_BASE & ~(0x3ful | 3ul << 14)) | size | (uint64_t)g->tg0 << 14 | (lpa2 ? 1ul << 59 : 0);
                request.ttbr0 = (uint64_t)tables[0][start + 1];
                by_probe = true;
                one_size(g, size, 0, lpa2, highest);
                by_probe = false;
            }
        }
    }
    off();
    level1[1] = 0x40000000 | NORMAL | UXN | BLOCK;
}

// Blocks of 512 GiB: all of one goes by any address in it.
static void huge_blocks(void) {
    if (ID_FIELD(id_aa64mmfr0_el1, 28) != 1)
        return;
    uint64_t *first = tables[1][0], *blocks = tables[1][1], va = (~0ul << 52 | 5ul << 39) + (uint64_t)target + 0x128;
    level1[1] = 0x40000000 | (NORMAL & ~SH_INNER) | UXN | BLOCK;
    first[0] = (uint64_t)blocks | TABLE;
    blocks[5] = AF | BLOCK;
    on((TCR_BASE & ~(0x3ful << 16)) | 12ul << 16 | 1ul << 59, (uint64_t)root_a, (uint64_t)first);
    CHECK_EQ(load(va), 0x600d);
    blocks[5] = 0;
    published();
    tlbi_page(va + (300ul << 30), 0);
    CHECK_EQ(fault(va), FSC_TRANSLATION);
    off();
    level1[1] = 0x40000000 | NORMAL | UXN | BLOCK;
}

// ---- permissions ----

static uint64_t user_load(uint64_t va) { return load(va); }
static uint64_t user_store(uint64_t va) { __asm__ volatile("str xzr, [%0]" : : "r"(va) : "memory"); return 0; }
static uint64_t user_call(uint64_t va) { return ((uint64_t(*)(void))va)(); }
static bool user(uint64_t (*f)(uint64_t), uint64_t va) {
    uint64_t before = caught.count;
    // A call that fails must come back by itself.
    resume = f == user_call ? (uint64_t)el0_call_return + USER_CODE : 0;
    el0_enter(f, va, (uint64_t)user_stack + sizeof user_stack + USER_DATA, USER_CODE);
    resume = 0;
    return caught.count == before;
}
static bool load_at_el0(uint64_t va) { return user(user_load, va); }
static bool load_at_el1(uint64_t va) { return SYNDROME(load(va)) == ~0ul; }
static bool store_at_el1(uint64_t va) { return SYNDROME(__asm__ volatile("str xzr, [%0]" : : "r"(va) : "memory")) == ~0ul; }
static bool call_at_el1(uint64_t va) {
    uint64_t before = caught.count;
    __asm__ volatile("adr x16, 1f\n str x16, [%0]\n blr %1\n1:" : : "r"(&resume), "r"(va) : "x0", "x16", "x30", "memory");
    resume = 0;
    return caught.count == before;
}
#define PAR_OK(op, va) ({ __asm__ volatile(op ", %0\n isb" : : "r"(va) : "memory"); !(READ_SYSREG(par_el1) & 1); })
#define SET_PAN(v) __asm__ volatile(".inst 0xd500409f | " #v " << 8" : : : "memory")

static void check(uint64_t what, const char *access, bool got, bool wanted) {
    if (got != wanted) {
        print("permissions 0x%x: %s is %s\n", what, access, got ? "allowed" : "refused");
        failures++;
    }
}

static void permissions(void) {
    uint64_t va = PLAY, tcr = TCR_BASE;
    volatile uint32_t *code = (volatile uint32_t *)target;
    bool epan_there = ID_FIELD(id_aa64mmfr1_el1, 20) >= 3;
    mmu_on();
    for (uint64_t i = 0; i < 1 << 10; i++) {
        // AP[2:1], UXN, PXN; APTable, UXNTable, PXNTable; HPD; EPAN.
        bool ap1 = i & 1, ap2 = i & 2, uxn = i & 4, pxn = i & 8, no_el0 = i & 16, read_only = i & 32, uxnt = i & 64, pxnt = i & 128;
        bool hpd = i & 256, epan = i & 512;
        if ((epan && !epan_there) || (hpd && !(i & 0xf0)))
            continue;
        play3[0] = (uint64_t)target | NORMAL | PAGE | (ap1 ? AP_EL0 : 0) | (ap2 ? AP_RO : 0) | (uxn ? UXN : 0) | (pxn ? PXN : 0);
        // One level up or two.
        uint64_t hierarchy = (no_el0 ? 1ul << 61 : 0) | (read_only ? 1ul << 62 : 0) | (uxnt ? 1ul << 60 : 0) | (pxnt ? 1ul << 59 : 0);
        play2[0] = (uint64_t)play3 | TABLE | (i & 4 ? hierarchy : 0);
        play1[0] = (uint64_t)play2 | TABLE | (i & 4 ? 0 : hierarchy);
        code[0] = 0xd65f03c0; // RET
        uint64_t sctlr = READ_SYSREG(sctlr_el1) & ~((uint64_t)SCTLR_WXN | 1ul << 57);
        WRITE_SYSREG(sctlr_el1, sctlr | (epan ? 1ul << 57 : 0));
        WRITE_SYSREG(tcr_el1, tcr | (hpd ? TCR_HPD0 : 0));
        __asm__ volatile("dc cvau, %0\n dsb ish\n ic iallu\n dsb ish\n isb" : : "r"(code) : "memory");
        tlbi_all();
        bool flat = hpd;
        bool el0 = ap1 && (flat || !no_el0), writable = !ap2 && (flat || !read_only);
        bool el0_x = !uxn && (flat || !uxnt), el1_x = !pxn && (flat || !pxnt) && !(el0 && writable);
        check(i, "load at EL1", load_at_el1(va), true);
        check(i, "store at EL1", store_at_el1(va + 64), writable);
        check(i, "fetch at EL1", call_at_el1(va), el1_x);
        check(i, "load at EL0", load_at_el0(va), el0);
        check(i, "store at EL0", user(user_store, va + 64), el0 && writable);
        check(i, "fetch at EL0", user(user_call, va), el0_x);
        check(i, "AT S1E1R", PAR_OK("at s1e1r", va), true);
        check(i, "AT S1E1W", PAR_OK("at s1e1w", va), writable);
        check(i, "AT S1E0R", PAR_OK("at s1e0r", va), el0);
        check(i, "AT S1E0W", PAR_OK("at s1e0w", va), el0 && writable);
        bool protected = el0 || (epan && el0_x);
        SET_PAN(1);
        check(i, "load at EL1 with PAN", load_at_el1(va), !protected);
        check(i, "store at EL1 with PAN", store_at_el1(va + 64), !protected && writable);
        check(i, "fetch at EL1 with PAN", call_at_el1(va), el1_x);
        check(i, "AT S1E1R with PAN", PAR_OK("at s1e1r", va), true);
        check(i, "AT S1E1RP with PAN", PAR_OK("sys #0, c7, c9, #0", va), !protected);
        check(i, "AT S1E1WP with PAN", PAR_OK("sys #0, c7, c9, #1", va), !protected && writable);
        SET_PAN(0);
        check(i, "AT S1E1RP", PAR_OK("sys #0, c7, c9, #0", va), true);
    }
    WRITE_SYSREG(tcr_el1, tcr);
    ISB();
    tlbi_all();
}

// Attributes and shareability, as AT tells them.
static void attributes(void) {
    static const uint8_t mair[8] = {0xff, 0x00, 0x44, 0x04, 0x0c, 0xbb, 0x4f, 0xf4};
    uint64_t all = 0;
    for (int i = 0; i < 8; i++)
        all |= (uint64_t)mair[i] << 8 * i;
    // The program's own are 0 and 1.
    WRITE_SYSREG(mair_el1, all);
    ISB();
    tlbi_all();
    for (uint64_t i = 0; i < 8; i++) {
        for (uint64_t sh = 0; sh < 4; sh++) {
            if (sh == 1)
                continue; // Reserved
            play3[0] = (uint64_t)target | AF | ATTR(i) | sh << 8 | PAGE;
            play2[0] = (uint64_t)play3 | TABLE;
            play1[0] = (uint64_t)play2 | TABLE;
            tlbi_all();
            uint64_t par = at_s1e1r(PLAY + 0x123);
            // Device memory and what is not cached at all is Outer Shareable.
            uint64_t shared = (mair[i] & 0xf0) == 0 || mair[i] == 0x44 ? 2 : sh;
            CHECK_EQ(par & 1, 0);
            CHECK_EQ(par >> 56, mair[i]);
            CHECK_EQ(par >> 7 & 3, shared);
            CHECK_EQ(par & 0xfffffffff000, (uint64_t)target);
        }
    }
}

int main(void) {
    *(volatile uint64_t *)(target + 0x128) = 0x600d;
    ((volatile uint32_t *)target)[0x200 / 4] = 0x10000001; // ADR X1, .
    ((volatile uint32_t *)target)[0x204 / 4] = 0xd65f03c0; // RET
    __asm__ volatile("dc cvau, %0\n dsb ish\n ic iallu\n dsb ish\n isb" : : "r"(target + 0x200) : "memory");
    mmu_tables();
    // The program for the probe, without the bits that TCR_EL1.DS makes a part of the address.
    high1[1] = 0x40000000 | ATTR(0) | AF | UXN | BLOCK;
    sizes();
    huge_blocks();
    permissions();
    attributes();
    return finish("walks");
}
