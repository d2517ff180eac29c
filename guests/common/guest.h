// What the bare-metal guests share: the virt board's addresses, console, interrupts, PSCI, semihosting.
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UART = 0x09000000, GICD = 0x08000000, GICR = 0x080a0000, RAM = 0x40000000 };
enum { INTID_TIMER_VIRTUAL = 27, INTID_TIMER_PHYSICAL = 30, INTID_UART = 33 };

#define READ_SYSREG(name) ({ uint64_t v_; __asm__ volatile("mrs %0, " #name : "=r"(v_) : : "memory"); v_; })
#define WRITE_SYSREG(name, value) \
    do { uint64_t v_ = (value); __asm__ volatile("msr " #name ", %0" : : "r"(v_) : "memory"); } while (0)
#define ISB() __asm__ volatile("isb" : : : "memory")
#define DSB() __asm__ volatile("dsb sy" : : : "memory")

// Interrupt controller's system registers, by number for assemblers that lack the names.
#define ICC_SRE_EL1 s3_0_c12_c12_5
#define ICC_PMR_EL1 s3_0_c4_c6_0
#define ICC_BPR1_EL1 s3_0_c12_c12_3
#define ICC_CTLR_EL1 s3_0_c12_c12_4
#define ICC_IGRPEN1_EL1 s3_0_c12_c12_7
#define ICC_IGRPEN0_EL1 s3_0_c12_c12_6
#define ICC_IAR0_EL1 s3_0_c12_c8_0
#define ICC_EOIR0_EL1 s3_0_c12_c8_1
#define ICC_IAR1_EL1 s3_0_c12_c12_0
#define ICC_EOIR1_EL1 s3_0_c12_c12_1
#define ICC_DIR_EL1 s3_0_c12_c11_1
#define ICC_RPR_EL1 s3_0_c12_c11_3
#define ICC_HPPIR1_EL1 s3_0_c12_c12_2
#define ICC_SGI1R_EL1 s3_0_c12_c11_5
#define READ_SYSREG_(name) READ_SYSREG(name)
#define WRITE_SYSREG_(name, value) WRITE_SYSREG(name, value)
#define ICC_READ(name) READ_SYSREG_(ICC_##name##_EL1)
#define ICC_WRITE(name, value) WRITE_SYSREG_(ICC_##name##_EL1, value)

// What an exception found; laid out by start.S.
struct frame {
    uint64_t x[31], elr, spsr, esr, far;
};
enum { VECTOR_SYNC_EL1 = 4, VECTOR_IRQ_EL1 = 5, VECTOR_SYNC_EL0 = 8, VECTOR_IRQ_EL0 = 9 };

static inline uint32_t mmio_read(uintptr_t a) {
    uint32_t v;
    __asm__ volatile("ldr %w0, [%1]" : "=r"(v) : "r"(a) : "memory");
    return v;
}
static inline void mmio_write(uintptr_t a, uint32_t v) {
    __asm__ volatile("str %w0, [%1]" : : "r"(v), "r"(a) : "memory");
}
static inline void mmio_write64(uintptr_t a, uint64_t v) {
    __asm__ volatile("str %0, [%1]" : : "r"(v), "r"(a) : "memory");
}
static inline void irq_mask(void) { __asm__ volatile("msr daifset, #2" : : : "memory"); }
static inline void irq_unmask(void) { __asm__ volatile("msr daifclr, #2" : : : "memory"); }
static inline void wfi(void) { __asm__ volatile("dsb sy\n\twfi" : : : "memory"); }

// Defined by each program.
int main(void);
void guest_exception(struct frame *f, uint64_t vector);

// Console. print() knows %s %c %d %x (64 bits) and %%, with a width for %d and %x, filled with 0 or blanks.
void put_char(char c);
void print(const char *format, ...);

// Interrupts: this CPU's interface and redistributor, then one interrupt in group 1 at a priority.
void gic_setup(void);
void gic_enable(uint32_t intid, uint8_t priority);
uintptr_t gic_redistributor(void);

// PSCI by HVC, semihosting by HLT.
int64_t psci(uint64_t function, uint64_t a, uint64_t b, uint64_t c);
uint64_t semihost(uint64_t operation, const void *parameter);
enum { PSCI_VERSION = 0x84000000, PSCI_CPU_OFF = 0x84000002, PSCI_FEATURES = 0x8400000a };
enum { PSCI_SYSTEM_OFF = 0x84000008, PSCI_SYSTEM_RESET = 0x84000009 };
#define PSCI_CPU_ON 0xc4000003ul
#define PSCI_AFFINITY_INFO 0xc4000004ul

// Ends the machine with a status for the host, through semihosting.
_Noreturn void guest_exit(uint64_t status);
// Starts CPU `index` in `function`, which may return to switch the CPU off. Gives PSCI's answer.
int64_t cpu_start(uint32_t index, void (*function)(void));

#endif
