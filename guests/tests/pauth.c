// cpu: max
// Pointer authentication (FEAT_PAuth with FEAT_FPAC and FEAT_FPACCOMBINE), whatever the algorithm.
#include "test.h"

__asm__(".arch armv8.6-a");

enum { EC_PAC = 0x1c };
enum { SCTLR_IA = 1u << 31, SCTLR_IB = 1 << 30, SCTLR_DA = 1 << 27, SCTLR_DB = 1 << 13 };

static uint8_t el0_stack[4096] __attribute__((aligned(16)));
static const uint64_t pointers[] = {0, 0x12345678, 0x7fffffffffff, 0xffff800000001230, ~0ul - 7};

#define SIGN(op, p, m) ({ uint64_t p_ = (p); __asm__ volatile(op " %0, %1" : "+r"(p_) : "r"((uint64_t)(m))); p_; })
#define ONE(op, p) ({ uint64_t p_ = (p); __asm__ volatile(op " %0" : "+r"(p_)); p_; })

static void codes(void) {
    for (unsigned i = 0; i < sizeof pointers / 8; i++) {
        uint64_t p = pointers[i], m = 0x1234 * i;
        uint64_t signed_[] = {SIGN("pacia", p, m), SIGN("pacib", p, m), SIGN("pacda", p, m), SIGN("pacdb", p, m)};
        for (int k = 0; k < 4; k++) {
            CHECK(signed_[k] != p);
            CHECK_EQ((signed_[k] ^ p) & (1ul << 55 | 0xffffffffffff), 0);
            CHECK_EQ(ONE("xpaci", signed_[k]), p);
            CHECK_EQ(ONE("xpacd", signed_[k]), p);
        }
        CHECK_EQ(SIGN("autia", signed_[0], m), p);
        CHECK_EQ(SIGN("autib", signed_[1], m), p);
        CHECK_EQ(SIGN("autda", signed_[2], m), p);
        CHECK_EQ(SIGN("autdb", signed_[3], m), p);
        CHECK_EQ(SIGN("pacia", p, 0), ONE("paciza", p));
        CHECK_EQ(SIGN("pacdb", p, 0), ONE("pacdzb", p));
        CHECK_EQ(ONE("autizb", ONE("pacizb", p)), p);
        // Failure: class, key, and that the register stays.
        static const uint64_t wrong = 99;
        uint64_t x = signed_[0];
        CHECK_EQ(SYNDROME(__asm__ volatile("autia %0, %1" : "+r"(x) : "r"(m + wrong))), (uint64_t)EC_PAC << 26 | 1u << 25);
        CHECK_EQ(x, signed_[0]);
        CHECK_EQ(SYNDROME(__asm__ volatile("autib %0, %1" : "+r"(x) : "r"(m))), (uint64_t)EC_PAC << 26 | 1u << 25 | 1);
        CHECK_EQ(SYNDROME(__asm__ volatile("autda %0, %1" : "+r"(x) : "r"(m))), (uint64_t)EC_PAC << 26 | 1u << 25 | 2);
        CHECK_EQ(SYNDROME(__asm__ volatile("autdzb %0" : "+r"(x))), (uint64_t)EC_PAC << 26 | 1u << 25 | 3);
    }
    uint64_t code, other;
    __asm__ volatile("pacga %0, %1, %2" : "=r"(code) : "r"(1ul), "r"(2ul));
    __asm__ volatile("pacga %0, %1, %2" : "=r"(other) : "r"(1ul), "r"(3ul));
    CHECK_EQ((uint32_t)code, 0);
    CHECK(code != other);
}

static void hints(void) {
    uint64_t lr, x17, sp;
    __asm__ volatile("mov x9, x30\n mov x30, %3\n paciasp\n mov %0, x30\n autiasp\n mov %1, x30\n mov %2, sp\n mov x30, x9"
                     : "=&r"(lr), "=&r"(x17), "=&r"(sp) : "r"(0x40001000ul) : "x9", "x30");
    CHECK_EQ(x17, 0x40001000);
    CHECK_EQ(lr, SIGN("pacia", 0x40001000ul, sp));
    __asm__ volatile("mov x9, x30\n mov x30, %1\n pacibz\n xpaclri\n mov %0, x30\n mov x30, x9"
                     : "=&r"(lr) : "r"(0x40001000ul) : "x9", "x30");
    CHECK_EQ(lr, 0x40001000);
    register uint64_t r16 __asm__("x16") = 55;
    register uint64_t r17 __asm__("x17") = 0x40002000;
    __asm__ volatile("pacib1716" : "+r"(r17) : "r"(r16));
    CHECK_EQ(r17, SIGN("pacib", 0x40002000ul, 55));
    __asm__ volatile("autib1716" : "+r"(r17) : "r"(r16));
    CHECK_EQ(r17, 0x40002000);
}

static uint64_t called;
__attribute__((used)) static void callee(void) { called++; }

static void combined(void) {
    uint64_t f = (uint64_t)callee, x;
    __asm__ volatile("blraa %0, %1" : : "r"(SIGN("pacia", f, 7)), "r"(7ul) : "x30", "memory", "x0", "x1", "x2", "x16", "x17");
    __asm__ volatile("blrabz %0" : : "r"(ONE("pacizb", f)) : "x30", "memory", "x0", "x1", "x2", "x16", "x17");
    CHECK_EQ(called, 2);
    __asm__ volatile("adr x0, 1f\n pacib x0, sp\n mov x1, sp\n brab x0, x1\n mov %0, #1\n b 2f\n1: mov %0, #2\n2:" : "=&r"(x) : : "x0", "x1");
    CHECK_EQ(x, 2);
    __asm__ volatile("mov x9, x30\n adr x30, 1f\n paciasp\n retaa\n mov %0, #1\n b 2f\n1: mov %0, #2\n2: mov x30, x9" : "=&r"(x) : : "x9", "x30");
    CHECK_EQ(x, 2);
    // A wrong code: nothing is called, and the exception is at the branch.
    uint64_t esr = SYNDROME(__asm__ volatile("adr %0, 1f\n1: blraa %1, %2" : "=&r"(x) : "r"(f ^ 1ul << 50), "r"(7ul) : "x30", "memory"));
    CHECK_EQ(esr, (uint64_t)EC_PAC << 26 | 1u << 25);
    CHECK_EQ(caught.elr, x);
    CHECK_EQ(called, 2);
    esr = SYNDROME(__asm__ volatile("mov x9, x30\n adr x30, 2f\n retab\n2: mov x30, x9" : : : "x9", "x30", "memory"));
    CHECK_EQ(esr, (uint64_t)EC_PAC << 26 | 1u << 25 | 1);

    static uint64_t data[1024] = {[1] = 11, [3] = 33, [600 - 512] = 44};
    uint64_t base = (uint64_t)data, p = ONE("pacdza", base), q = ONE("pacdzb", base + 4096), v;
    __asm__ volatile("ldraa %0, [%1, #8]" : "=r"(v) : "r"(p));
    CHECK_EQ(v, 11);
    __asm__ volatile("ldraa %0, [%1, #24]!" : "=r"(v), "+r"(p));
    CHECK_EQ(v, 33);
    CHECK_EQ(p, base + 24);
    __asm__ volatile("ldrab %0, [%1, #-3392]" : "=r"(v) : "r"(q));
    CHECK_EQ(v, 44);
    p = ONE("pacdza", base) ^ 1ul << 53;
    esr = SYNDROME(__asm__ volatile("ldraa %0, [%1, #8]!" : "=r"(v), "+r"(p)));
    CHECK_EQ(esr, (uint64_t)EC_PAC << 26 | 1u << 25 | 2);
    CHECK_EQ(p, ONE("pacdza", base) ^ 1ul << 53);

    __asm__ volatile("adr x0, 1f\n mov x1, sp\n pacia x0, x1\n msr elr_el1, x0\n mov x1, #0x3c5\n msr spsr_el1, x1\n eretaa\n"
                     "mov %0, #1\n b 2f\n1: mov %0, #2\n2:" : "=&r"(x) : : "x0", "x1", "memory");
    CHECK_EQ(x, 2);
    esr = SYNDROME(__asm__ volatile("adr x0, 2f\n msr elr_el1, x0\n mov x1, #0x3c5\n msr spsr_el1, x1\n eretab\n2:" : : : "x0", "x1", "memory"));
    CHECK_EQ(esr, (uint64_t)EC_PAC << 26 | 1u << 25 | 1);
}

static uint64_t el0_sign(uint64_t x) { return SIGN("pacia", x, 5); }
static uint64_t el0_key(uint64_t x) { __asm__ volatile("mrs %0, s3_0_c2_c1_0" : "=r"(x)); return x; }

static void control(void) {
    uint64_t stack = (uint64_t)el0_stack + sizeof el0_stack, sctlr = READ_SYSREG(sctlr_el1);
    CHECK_EQ(el0_enter(el0_sign, 0x1000, stack, 0), SIGN("pacia", 0x1000ul, 5));
    CHECK_EQ(EC(SYNDROME(el0_enter(el0_key, 0, stack, 0))), EC_UNKNOWN);
    WRITE_SYSREG(sctlr_el1, sctlr & ~(uint64_t)SCTLR_IA);
    ISB();
    CHECK_EQ(SIGN("pacia", 0x1000ul, 5), 0x1000);
    CHECK_EQ(SIGN("autia", 0x10000000001000ul, 5), 0x10000000001000);
    CHECK(SIGN("pacib", 0x1000ul, 5) != 0x1000);
    WRITE_SYSREG(sctlr_el1, sctlr);
    ISB();
    // Another key, another code.
    uint64_t before = SIGN("pacia", 0x1000ul, 5);
    WRITE_SYSREG(s3_0_c2_c1_0, 1);
    CHECK(SIGN("pacia", 0x1000ul, 5) != before);
    CHECK_EQ(READ_SYSREG(s3_0_c2_c1_0), 1);
    // With the top byte ignored for data only, tags are kept there and part of the code for instructions.
    WRITE_SYSREG(tcr_el1, READ_SYSREG(tcr_el1) | 1ul << 37 | 1ul << 51);
    ISB();
    uint64_t tagged = 0xa500000000001000;
    CHECK_EQ(SIGN("pacda", tagged, 5) >> 56, 0xa5);
    CHECK_EQ(SIGN("autda", SIGN("pacda", tagged, 5), 5), tagged);
    CHECK_EQ(SIGN("autia", SIGN("pacia", 0x1000ul, 5), 5), 0x1000);
}

int main(void) {
    WRITE_SYSREG(s3_0_c2_c1_0, 0x0123456789abcdef);
    WRITE_SYSREG(s3_0_c2_c1_1, 0xfedcba9876543210);
    WRITE_SYSREG(s3_0_c2_c1_2, 0x84be85ce9804e94b);
    WRITE_SYSREG(s3_0_c2_c1_3, 0xec2802d4e0a488e9);
    WRITE_SYSREG(s3_0_c2_c2_0, 0x1111111111111111);
    WRITE_SYSREG(s3_0_c2_c2_2, 0x2222222222222222);
    WRITE_SYSREG(s3_0_c2_c3_0, 0x3333333333333333);
    WRITE_SYSREG(tcr_el1, 16ul | 16ul << 16 | 2ul << 30);
    WRITE_SYSREG(sctlr_el1, READ_SYSREG(sctlr_el1) | SCTLR_IA | SCTLR_IB | SCTLR_DA | SCTLR_DB);
    ISB();
    codes();
    hints();
    combined();
    control();
    return finish("pauth");
}
