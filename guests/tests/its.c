// smp: 2
// LPIs and the interrupt translation service: collections, devices, events, all commands, masks and priorities, on two CPUs
// (GIC architecture, IHI 0069, chapter 5).
#include "test.h"

enum { ITS = 0x08080000, LPI = 8192, DEVICE = 5, EVENTS = 16, QUEUE = 0x10000 };
enum { MOVI = 1, INT = 3, CLEAR = 4, SYNC = 5, MAPD = 8, MAPC, MAPTI, MAPI, INV, INVALL, MOVALL, DISCARD };
#define VALID (1ul << 63)

static uint8_t configuration[0x10000] __attribute__((aligned(0x10000)));
static uint8_t pending[2][0x10000] __attribute__((aligned(0x10000)));
static uint8_t devices[0x10000] __attribute__((aligned(0x10000)));
static uint8_t collections[0x10000] __attribute__((aligned(0x10000)));
static uint64_t queue[QUEUE / 8] __attribute__((aligned(0x10000)));
static uint8_t events[2][0x1000] __attribute__((aligned(0x1000)));

static volatile uint32_t order[2][64], taken[2];
static volatile uint32_t other_ready;

static uint64_t mmio_read64(uintptr_t a) { return mmio_read(a) | (uint64_t)mmio_read(a + 4) << 32; }

static void note(uint32_t intid) {
    int cpu = READ_SYSREG(mpidr_el1) & 1;
    order[cpu][taken[cpu] % 64] = intid;
    if (intid < 1020 || intid >= LPI)
        ICC_WRITE(EOIR1, intid);
    ISB();
    taken[cpu]++;
    DSB();
}

// Waits a bounded while until CPU `cpu` has taken n, and sees that it takes no more.
static void settle(int cpu, uint32_t n) {
    for (int i = 0; i < 20000000 && taken[cpu] < n; i++)
        ISB();
    for (int i = 0; i < 2000; i++)
        ISB();
    CHECK_EQ(taken[cpu], n);
}

static void forget(void) {
    taken[0] = taken[1] = 0;
    DSB();
}

// Puts a command into the queue and waits until it has been read.
static void command(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    uint64_t at = mmio_read64(ITS + 0x88);
    uint64_t *place = queue + at / 8;
    place[0] = a, place[1] = b, place[2] = c, place[3] = d;
    DSB();
    at = (at + 32) % QUEUE;
    mmio_write64(ITS + 0x88, at);
    for (int i = 0; i < 1000000 && mmio_read64(ITS + 0x90) != at; i++) {
    }
    CHECK_EQ(mmio_read64(ITS + 0x90), at);
}

static void of_event(uint64_t number, uint64_t device, uint64_t event) { command(number | device << 32, event, 0, 0); }
static void map_device(uint64_t device, uint64_t bits, void *table) {
    command(MAPD | device << 32, bits - 1, (uint64_t)table | VALID, 0);
}
static void map_event(uint64_t event, uint64_t lpi, uint64_t collection) {
    command(MAPTI | (uint64_t)DEVICE << 32, event | lpi << 32, collection, 0);
}
static void map_collection(uint64_t id, uint64_t cpu) { command(MAPC, 0, id | cpu << 16 | VALID, 0); }
static void move(uint64_t event, uint64_t collection) { command(MOVI | (uint64_t)DEVICE << 32, event, collection, 0); }
static void sync(uint64_t cpu) { command(SYNC, 0, cpu << 16, 0); }
static void send(uint64_t event) { of_event(INT, DEVICE, event); }

static void configure(uint32_t lpi, uint8_t byte) {
    configuration[lpi - LPI] = byte;
    DSB();
}

// This CPU's redistributor.
static void enable_lpis(int cpu) {
    uintptr_t r = gic_redistributor();
    CHECK_EQ(mmio_read(r + 8) & 1, 1);                               // TYPER.PLPIS
    mmio_write64(r + 0x70, (uint64_t)configuration | 15);            // PROPBASER: 16 bits
    mmio_write64(r + 0x78, (uint64_t)pending[cpu] | 1ul << 62);      // PENDBASER: all zeros
    CHECK_EQ(mmio_read64(r + 0x70) & 0xfffffffff01f, (uint64_t)configuration | 15);
    CHECK_EQ(mmio_read64(r + 0x78) & 0xffffffff0000, (uint64_t)pending[cpu]);
    DSB();
    mmio_write(r, 1); // CTLR.EnableLPIs
    CHECK_EQ(mmio_read(r) & 1, 1);
}

static void enable_its(void) {
    CHECK_EQ(mmio_read(GICD + 4) >> 17 & 1, 1); // TYPER.LPIS
    CHECK((mmio_read(GICD + 4) >> 19 & 31) >= 13); // TYPER.IDbits
    CHECK_EQ(mmio_read(ITS + 0xffe8) >> 4 & 15, 3);
    uint64_t type = mmio_read64(ITS + 8);
    CHECK_EQ(type & 1, 1);                                            // Physical
    CHECK_EQ(type >> 19 & 1, 0);                                      // CPUs by their numbers
    CHECK((type >> 4 & 15) < sizeof events[0] / EVENTS);
    CHECK_EQ(mmio_read(ITS), 1u << 31);                               // Quiescent
    CHECK_EQ(mmio_read64(ITS + 0x100) >> 56 & 7, 1);                  // Devices
    CHECK_EQ(mmio_read64(ITS + 0x108) >> 56 & 7, 4);                  // Collections
    CHECK_EQ(mmio_read64(ITS + 0x110) >> 56 & 7, 0);
    mmio_write64(ITS + 0x80, (uint64_t)queue | VALID | 15);           // 16 pages of 4 KiB
    mmio_write64(ITS + 0x100, (uint64_t)devices | VALID | 2 << 8);    // One of 64 KiB
    mmio_write64(ITS + 0x108, (uint64_t)collections | VALID | 2 << 8);
    CHECK_EQ(mmio_read64(ITS + 0x100) & 0x8000ffffffff0000, (uint64_t)devices | VALID);
    CHECK_EQ(mmio_read64(ITS + 0x100) >> 8 & 3, 2);
    CHECK_EQ(mmio_read64(ITS + 0x90), 0);
    mmio_write64(ITS + 0x88, 0);
    mmio_write(ITS, 1);
    CHECK_EQ(mmio_read(ITS) & 1, 1);
}

static void other(void) {
    gic_setup();
    enable_lpis(1);
    irq_unmask();
    other_ready = 1;
    DSB();
    for (;;)
        wfi();
}

static void map(void) {
    map_collection(0, 0);
    map_collection(1, 1);
    map_collection(300, 1);
    map_device(DEVICE, 4, events[0]);
    for (uint64_t event = 0; event < 8; event++) {
        configure(LPI + 16 + event, 0xa1);
        map_event(event, LPI + 16 + event, event == 7 ? 1 : event == 6 ? 300 : 0);
    }
    sync(0);
    sync(1);
}

static void taking(void) {
    forget();
    send(0);
    settle(0, 1);
    CHECK_EQ(order[0][0], LPI + 16);
    // There is no active state: it can be pending again before the end, but is not signalled before the priority drops.
    irq_mask();
    send(1);
    CHECK_EQ(ICC_READ(HPPIR1), LPI + 17);
    CHECK_EQ(ICC_READ(IAR1), LPI + 17);
    CHECK_EQ(ICC_READ(RPR), 0xa0);
    CHECK_EQ(ICC_READ(IAR1), 1023);
    send(1);
    CHECK_EQ(ICC_READ(IAR1), 1023);
    ICC_WRITE(EOIR1, LPI + 17);
    ISB();
    CHECK_EQ(ICC_READ(RPR), 0xff);
    // Sent twice it is pending once.
    send(1);
    irq_unmask();
    settle(0, 2);
    CHECK_EQ(order[0][1], LPI + 17);
    // On the other one, by either collection.
    send(7);
    settle(1, 1);
    send(6);
    settle(1, 2);
    CHECK_EQ(order[1][0], LPI + 23);
    CHECK_EQ(order[1][1], LPI + 22);
    for (uint32_t round = 0; round < 1000 && taken[1] == round + 2; round++) {
        send(7);
        for (int i = 0; i < 20000000 && taken[1] == round + 2; i++)
            ISB();
    }
    settle(1, 1002);
    settle(0, 2);
}

static void priorities(void) {
    forget();
    irq_mask();
    configure(LPI + 18, 0x41);
    configure(LPI + 19, 0xc1);
    of_event(INV, DEVICE, 2);
    of_event(INV, DEVICE, 3);
    send(3);
    send(0);
    send(1);
    send(2);
    CHECK_EQ(ICC_READ(HPPIR1), LPI + 18);
    ICC_WRITE(PMR, 0x40);
    ISB();
    CHECK_EQ(ICC_READ(IAR1), 1023);
    ICC_WRITE(PMR, 0xff);
    // An SGI of the same priority comes first, having the lower number.
    gic_enable(3, 0xa0);
    ICC_WRITE(SGI1R, 3ul << 24 | 1);
    ISB();
    irq_unmask();
    settle(0, 5);
    static const uint32_t wanted[] = {LPI + 18, 3, LPI + 16, LPI + 17, LPI + 19};
    for (int i = 0; i < 5; i++)
        CHECK_EQ(order[0][i], wanted[i]);
    configure(LPI + 18, 0xa1);
    configure(LPI + 19, 0xa1);
    command(INVALL, 0, 0, 0);
}

static void masks(void) {
    forget();
    // Disabled, told by INV: pending, not signalled, until it is told that it is enabled.
    configure(LPI + 16, 0xa0);
    of_event(INV, DEVICE, 0);
    send(0);
    settle(0, 0);
    CHECK_EQ(ICC_READ(HPPIR1), 1023);
    configure(LPI + 16, 0xa1);
    of_event(INV, DEVICE, 0);
    settle(0, 1);
    // The same by INVALL, of the collection alone.
    configure(LPI + 16, 0xa0);
    configure(LPI + 23, 0xa0);
    command(INVALL, 0, 0, 0);
    command(INVALL, 0, 1, 0);
    send(0);
    send(7);
    settle(0, 1);
    settle(1, 0);
    configure(LPI + 16, 0xa1);
    configure(LPI + 23, 0xa1);
    command(INVALL, 0, 0, 0);
    settle(0, 2);
    command(INVALL, 0, 1, 0);
    settle(1, 1);
    CHECK_EQ(order[0][1], LPI + 16);
    CHECK_EQ(order[1][0], LPI + 23);
}

static void taking_back(void) {
    forget();
    irq_mask();
    send(0);
    send(1);
    of_event(CLEAR, DEVICE, 0);
    CHECK_EQ(ICC_READ(HPPIR1), LPI + 17);
    of_event(DISCARD, DEVICE, 1);
    CHECK_EQ(ICC_READ(HPPIR1), 1023);
    // What was discarded is not there any more, what was cleared is.
    send(1);
    CHECK_EQ(ICC_READ(HPPIR1), 1023);
    send(0);
    CHECK_EQ(ICC_READ(HPPIR1), LPI + 16);
    irq_unmask();
    settle(0, 1);
    map_event(1, LPI + 17, 0);
    send(1);
    settle(0, 2);
    CHECK_EQ(order[0][1], LPI + 17);
}

static void moving(void) {
    forget();
    irq_mask();
    // What is pending moves along.
    send(2);
    CHECK_EQ(ICC_READ(HPPIR1), LPI + 18);
    move(2, 1);
    settle(1, 1);
    CHECK_EQ(order[1][0], LPI + 18);
    CHECK_EQ(ICC_READ(HPPIR1), 1023);
    irq_unmask();
    send(2);
    settle(1, 2);
    settle(0, 0);
    move(2, 0);
    send(2);
    settle(0, 1);
    // All that is pending here goes there; mappings stay.
    irq_mask();
    send(0);
    send(1);
    send(2);
    command(MOVALL, 0, 0, 1ul << 16);
    settle(1, 5);
    CHECK_EQ(ICC_READ(HPPIR1), 1023);
    irq_unmask();
    send(0);
    settle(0, 2);
    // A collection goes to another CPU.
    map_collection(300, 0);
    sync(0);
    send(6);
    settle(0, 3);
    CHECK_EQ(order[0][2], LPI + 22);
}

static void bounds(void) {
    forget();
    // No such event, no such device, nothing mapped: nothing comes, and the queue goes on.
    send(EVENTS);
    send(EVENTS - 1);
    of_event(INT, DEVICE + 1, 0);
    of_event(INT, 0xfffff, 0);
    map_event(9, 100, 0); // Not an LPI
    send(9);
    map_event(EVENTS, LPI + 30, 0); // Behind the table
    send(EVENTS);
    send(0);
    settle(0, 1);
    // INTID and EventID alike.
    map_device(DEVICE + 1, 14, events[1]);
    sync(0);
    of_event(MAPD, DEVICE + 1, 0);
    of_event(INT, DEVICE + 1, 0);
    settle(0, 1);
    // Round the queue more than once.
    for (uint32_t i = 0; i < QUEUE / 32 + 100; i++)
        sync(i & 1);
    send(0);
    settle(0, 2);
    // A collection without a CPU.
    command(MAPC, 0, 300, 0);
    send(6);
    settle(0, 2);
    settle(1, 0);
    // A device without a table.
    of_event(MAPD, DEVICE, 0);
    send(0);
    settle(0, 2);
}

static uint8_t many[0x4000 * 16] __attribute__((aligned(0x1000)));
static void alike(void) {
    forget();
    map_device(DEVICE + 2, 14, many);
    configure(LPI + 40, 0xa1);
    command(MAPI | (uint64_t)(DEVICE + 2) << 32, LPI + 40, 0, 0);
    of_event(INT, DEVICE + 2, LPI + 40);
    settle(0, 1);
    CHECK_EQ(order[0][0], LPI + 40);
}

// Where the IDs say that it is there: a configuration is read again without a command.
static void directly(void) {
    uintptr_t r = gic_redistributor();
    if (!(mmio_read(r) & 1 << 2))
        return;
    forget();
    configure(LPI + 40, 0xa0);
    of_event(INV, DEVICE + 2, LPI + 40);
    of_event(INT, DEVICE + 2, LPI + 40);
    settle(0, 0);
    configure(LPI + 40, 0xa1);
    mmio_write64(r + 0xa0, LPI + 40); // INVLPIR
    CHECK_EQ(mmio_read(r + 0xc0) & 1, 0); // SYNCR
    settle(0, 1);
    configure(LPI + 40, 0xa0);
    mmio_write64(r + 0xb0, 0); // INVALLR
    of_event(INT, DEVICE + 2, LPI + 40);
    settle(0, 1);
    configure(LPI + 40, 0xa1);
    mmio_write64(r + 0xb0, 0);
    settle(0, 2);
}

// Where LPIs can be disabled again: what is pending is in the table then, and comes from there.
static void off_and_on(void) {
    uintptr_t r = gic_redistributor();
    if (!(mmio_read(r) & 1 << 1))
        return;
    forget();
    irq_mask();
    of_event(INT, DEVICE + 2, LPI + 40);
    mmio_write(r, 0);
    CHECK_EQ(mmio_read(r) & 1, 0);
    CHECK_EQ(ICC_READ(HPPIR1), 1023);
    of_event(INT, DEVICE + 2, LPI + 40);
    irq_unmask();
    settle(0, 0);
    mmio_write(r, 1);
    if (taken[0]) // A host's KVM forgets.
        settle(0, 1);
    of_event(INT, DEVICE + 2, LPI + 40);
    settle(0, taken[0] > 1 ? 2 : 1);
}

int main(void) {
    on_irq = note;
    gic_setup();
    enable_lpis(0);
    enable_its();
    irq_unmask();
    CHECK_EQ(cpu_start(1, other), 0);
    for (int i = 0; i < 100000000 && !other_ready; i++)
        ISB();
    CHECK_EQ(other_ready, 1);
    map();
    taking();
    priorities();
    masks();
    taking_back();
    moving();
    bounds();
    alike();
    directly();
    off_and_on();
    // Off: commands wait, messages are lost.
    mmio_write(ITS, 0);
    CHECK_EQ(mmio_read(ITS) & 1, 0);
    return finish("its");
}
