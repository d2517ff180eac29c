//! How the machine's CPUs are arranged: threads in cores, cores in clusters, clusters in sockets; and what follows from
//! it, the affinity of each CPU.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::spec;

/// A level of the arrangement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Sockets of the machine.
    Sockets,
    /// Clusters of a socket.
    Clusters,
    /// Cores of a cluster.
    Cores,
    /// Threads of a core.
    Threads,
}

impl Level {
    /// All, the outermost first.
    pub const ALL: [Self; 4] = [Self::Sockets, Self::Clusters, Self::Cores, Self::Threads];

    /// Name as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Clusters => "clusters",
            Self::Cores => "cores",
            Self::Threads => "threads",
        }
    }
}

/// What is asked of the arrangement; what is not given is worked out ([`TopologyConfig::resolve`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TopologyConfig {
    /// Sockets of the machine.
    pub sockets: Option<usize>,
    /// Clusters of each socket.
    pub clusters: Option<usize>,
    /// Cores of each cluster.
    pub cores: Option<usize>,
    /// Threads of each core.
    pub threads: Option<usize>,
}

/// Why CPUs cannot be arranged so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TopologyError {
    /// A level with nothing in it.
    #[error("{0}=0 leaves no CPU: give {0}=1 or more, or leave it out")]
    Zero(&'static str),
    /// More than a number of an affinity level, or of the board.
    #[error("{level}={given} is more than the interrupt controller can name: give {level}={most} or less")]
    TooMany {
        /// The property.
        level: &'static str,
        /// What was given, or worked out.
        given: usize,
        /// The most there may be.
        most: usize,
    },
    /// The levels do not make up the places.
    #[error("{given} does not make up room for {places} CPUs: change it, or give --smp {mend}")]
    Product {
        /// The properties that were given.
        given: String,
        /// Places for CPUs.
        places: usize,
        /// A value of the option that is right.
        mend: String,
    },
}

impl TopologyConfig {
    /// What was given for `level`.
    pub const fn get(&self, level: Level) -> Option<usize> {
        match level {
            Level::Sockets => self.sockets,
            Level::Clusters => self.clusters,
            Level::Cores => self.cores,
            Level::Threads => self.threads,
        }
    }

    /// Gives `level` a value.
    pub const fn set(&mut self, level: Level, value: usize) {
        match level {
            Level::Sockets => self.sockets = Some(value),
            Level::Clusters => self.clusters = Some(value),
            Level::Cores => self.cores = Some(value),
            Level::Threads => self.threads = Some(value),
        }
    }

    /// What the given levels multiply to: the number of CPUs where none is given.
    pub fn product(&self) -> usize {
        Level::ALL.iter().filter_map(|level| self.get(*level)).fold(1, usize::saturating_mul)
    }

    /// The arrangement of `places` CPUs, `cpus` of which are there at the start. One level that is not given is worked
    /// out: cores, or else sockets, or else threads; the others are 1.
    ///
    /// # Errors
    /// The first thing wrong, with its mend.
    pub fn resolve(&self, cpus: usize, places: usize) -> Result<Topology, TopologyError> {
        for level in Level::ALL {
            match self.get(level) {
                Some(0) => return Err(TopologyError::Zero(level.name())),
                Some(given) if given > spec::MAX_CPUS => return Err(too_many(level, given, spec::MAX_CPUS)),
                _ => {}
            }
        }
        let product = self.product();
        let free =
            [Level::Cores, Level::Sockets, Level::Threads].into_iter().find(|l| self.get(*l).is_none());
        let rest = if free.is_some() { places / product } else { 1 };
        if rest * product != places {
            let room = if free.is_some() { cpus.max(1).next_multiple_of(product) } else { product };
            return Err(self.mismatch(cpus.min(room), room, places));
        }
        let level = |level| self.get(level).unwrap_or(if free == Some(level) { rest } else { 1 });
        let [sockets, clusters, cores, threads] = Level::ALL.map(level);
        let topology = Topology { sockets, clusters, cores, threads };
        topology.check()?;
        Ok(topology)
    }

    fn mismatch(&self, cpus: usize, room: usize, places: usize) -> TopologyError {
        let given = Level::ALL.iter().filter_map(|l| Some(format!("{}={}", l.name(), self.get(*l)?)));
        let given = given.collect::<Vec<_>>().join(",");
        let max = if cpus == room { String::new() } else { format!(",max={room}") };
        let mend = match room <= spec::MAX_CPUS {
            true => format!("{cpus}{max},{given}"),
            false => places.to_string(),
        };
        TopologyError::Product { given, places, mend }
    }
}

const fn too_many(level: Level, given: usize, most: usize) -> TopologyError {
    TopologyError::TooMany { level: level.name(), given, most }
}

/// An arrangement of CPUs. CPU numbers go through the threads of a core first, then its cluster's cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Sockets of the machine, at least 1.
    pub sockets: usize,
    /// Clusters of each socket, at least 1.
    pub clusters: usize,
    /// Cores of each cluster, at least 1.
    pub cores: usize,
    /// Threads of each core, at least 1.
    pub threads: usize,
}

/// Where a CPU is: its socket, the cluster in that, the core in that, the thread in that, each counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Socket of the machine.
    pub socket: usize,
    /// Cluster of the socket.
    pub cluster: usize,
    /// Core of the cluster.
    pub core: usize,
    /// Thread of the core.
    pub thread: usize,
}

/// CPUs that one target list of `ICC_SGI1R_EL1` names.
const TARGET_LIST: usize = 16;
/// Values of one affinity level.
const AFFINITY_VALUES: usize = 256;
/// `MPIDR_EL1`, RES1.
const MPIDR_RES1: u64 = 1 << 31;
/// `MPIDR_EL1.MT`: the lowest affinity level is that of threads.
const MPIDR_MT: u64 = 1 << 24;

impl Topology {
    /// `count` cores of one cluster.
    pub const fn flat(count: usize) -> Self {
        Self { sockets: 1, clusters: 1, cores: count, threads: 1 }
    }

    /// Number of places for CPUs.
    pub const fn places(&self) -> usize {
        self.sockets * self.clusters * self.cores * self.threads
    }

    /// Where CPU `index` is.
    pub const fn position(&self, index: usize) -> Position {
        let core = index / self.threads;
        let cluster = core / self.cores;
        Position {
            socket: cluster / self.clusters,
            cluster: cluster % self.clusters,
            core: core % self.cores,
            thread: index % self.threads,
        }
    }

    /// The number of the CPU that is there.
    pub const fn index(&self, at: Position) -> usize {
        ((at.socket * self.clusters + at.cluster) * self.cores + at.core) * self.threads + at.thread
    }

    /// Affinity fields of CPU `index` as in `MPIDR_EL1`. With threads the levels are thread, core, cluster, socket.
    /// Without, they are core, cluster, socket; a cluster takes a value of Aff1 for every 16 of its cores, since that is
    /// what one target list of a software-generated interrupt reaches.
    pub const fn affinity(&self, index: usize) -> u64 {
        let Position { socket, cluster, core, thread } = self.position(index);
        if self.threads > 1 {
            return (socket as u64) << 32 | (cluster as u64) << 16 | (core as u64) << 8 | thread as u64;
        }
        let lists = self.cores.div_ceil(TARGET_LIST);
        let aff1 = cluster * lists + core / TARGET_LIST;
        (socket as u64) << 16 | (aff1 as u64) << 8 | (core % TARGET_LIST) as u64
    }

    /// Affinities of all places.
    pub fn affinities(&self) -> Vec<u64> {
        (0..self.places()).map(|index| self.affinity(index)).collect()
    }

    /// `MPIDR_EL1` of CPU `index`.
    pub const fn mpidr(&self, index: usize) -> u64 {
        let mt = if self.threads > 1 { MPIDR_MT } else { 0 };
        MPIDR_RES1 | mt | self.affinity(index)
    }

    /// Every CPU must have an affinity.
    fn check(&self) -> Result<(), TopologyError> {
        let (cores, clusters) = match self.threads {
            1 => (spec::MAX_CPUS, AFFINITY_VALUES / self.cores.div_ceil(TARGET_LIST)),
            _ => (AFFINITY_VALUES, AFFINITY_VALUES),
        };
        let limits = [
            (Level::Threads, self.threads, TARGET_LIST),
            (Level::Cores, self.cores, cores),
            (Level::Clusters, self.clusters, clusters),
            (Level::Sockets, self.sockets, AFFINITY_VALUES),
        ];
        let over = limits.into_iter().find(|(_, given, most)| given > most);
        over.map_or(Ok(()), |(level, given, most)| Err(too_many(level, given, most)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Sockets, clusters, cores, threads; 0 is not given.
    fn asked(levels: [usize; 4]) -> TopologyConfig {
        let mut config = TopologyConfig::default();
        for (level, value) in Level::ALL.into_iter().zip(levels) {
            if value != 0 {
                config.set(level, value);
            }
        }
        config
    }

    /// The right-hand sides are what QEMU 10 makes of the same `-smp`, as `query-cpus-fast` tells it.
    #[test]
    fn what_is_missing_is_worked_out_as_qemu_does() {
        for (places, given, expected) in [
            (1, [0, 0, 0, 0], [1, 1, 1, 1]),
            (4, [0, 0, 0, 0], [1, 1, 4, 1]),
            (8, [2, 0, 0, 0], [2, 1, 4, 1]),
            (8, [0, 2, 0, 0], [1, 2, 4, 1]),
            (8, [0, 0, 2, 0], [4, 1, 2, 1]),
            (8, [0, 0, 0, 2], [1, 1, 4, 2]),
            (8, [0, 0, 2, 2], [2, 1, 2, 2]),
            (8, [2, 0, 2, 0], [2, 1, 2, 2]),
            (8, [2, 0, 0, 2], [2, 1, 2, 2]),
            (8, [0, 2, 2, 0], [2, 2, 2, 1]),
            (8, [0, 2, 0, 2], [1, 2, 2, 2]),
            (8, [2, 2, 1, 0], [2, 2, 1, 2]),
            (8, [1, 2, 2, 2], [1, 2, 2, 2]),
        ] {
            let found = asked(given).resolve(1, places).map(|t| [t.sockets, t.clusters, t.cores, t.threads]);
            assert_eq!(found, Ok(expected), "{places} CPUs, {given:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_mend_that_works() {
        for (cpus, places, given, text) in [
            (
                8,
                8,
                [3, 0, 0, 0],
                "sockets=3 does not make up room for 8 CPUs: change it, or give --smp 8,max=9,sockets=3",
            ),
            (
                4,
                4,
                [0, 0, 8, 0],
                "cores=8 does not make up room for 4 CPUs: change it, or give --smp 4,max=8,cores=8",
            ),
            (
                4,
                4,
                [1, 2, 2, 2],
                "sockets=1,clusters=2,cores=2,threads=2 does not make up room for 4 CPUs: change it, or give \
                 --smp 4,max=8,sockets=1,clusters=2,cores=2,threads=2",
            ),
            (9, 9, [1, 2, 2, 2], "--smp 8,sockets=1,clusters=2,cores=2,threads=2"),
            (8, 8, [512, 512, 0, 0], "give --smp 8"),
            (
                8,
                8,
                [0, 513, 0, 0],
                "clusters=513 is more than the interrupt controller can name: give clusters=512 or less",
            ),
            (512, 512, [512, 0, 0, 0], "give sockets=256 or less"),
            (512, 512, [0, 512, 0, 0], "give clusters=256 or less"),
            (
                64,
                64,
                [0, 0, 0, 32],
                "threads=32 is more than the interrupt controller can name: give threads=16 or less",
            ),
        ] {
            let error = asked(given).resolve(cpus, places).unwrap_err().to_string();
            assert!(error.ends_with(text), "{given:?}: {error}");
        }
        let zero = TopologyConfig { threads: Some(0), ..TopologyConfig::default() };
        assert_eq!(zero.resolve(1, 1), Err(TopologyError::Zero("threads")));
    }

    /// All arrangements of up to 512 CPUs that are accepted.
    fn arrangements() -> impl Iterator<Item = Topology> {
        let levels = [1_usize, 2, 3, 4, 5, 8, 16, 17, 31, 64, 128, 256, 512];
        let all = levels.into_iter().flat_map(move |a| levels.into_iter().map(move |b| (a, b)));
        let all: Vec<_> = all.collect();
        let pairs = all.clone();
        all.into_iter()
            .flat_map(move |(s, c)| pairs.clone().into_iter().map(move |(n, t)| asked([s, c, n, t])))
            .filter_map(|config| {
                (config.product() <= spec::MAX_CPUS).then(|| config.resolve(1, config.product()).ok())?
            })
    }

    #[test]
    fn every_cpu_has_an_affinity_of_its_own_that_a_target_list_can_name() {
        let mut seen = 0;
        for topology in arrangements() {
            seen += 1;
            let affinities = topology.affinities();
            let different: HashSet<_> = affinities.iter().collect();
            assert_eq!(different.len(), topology.places(), "{topology:?}");
            assert!(affinities.iter().all(|a| a & 0xff < 16 && a & !0xff_00ff_ffff == 0), "{topology:?}");
            for index in 0..topology.places() {
                assert_eq!(topology.index(topology.position(index)), index, "{topology:?}");
            }
        }
        assert!(seen > 300, "{seen}");
    }

    #[test]
    fn affinity_levels_are_those_of_the_arrangement() {
        let flat = Topology::flat(32);
        assert_eq!(
            [0, 15, 16, 17].map(|i| flat.mpidr(i)),
            [0x8000_0000, 0x8000_000f, 0x8000_0100, 0x8000_0101]
        );
        let clusters = Topology { sockets: 2, clusters: 2, cores: 4, threads: 1 };
        assert_eq!([3, 4, 8, 13].map(|i| clusters.affinity(i)), [3, 0x100, 0x1_0000, 0x1_0101]);
        let wide = Topology { sockets: 1, clusters: 2, cores: 20, threads: 1 };
        assert_eq!([19, 20, 36].map(|i| wide.affinity(i)), [0x103, 0x200, 0x300]);
        let threads = Topology { sockets: 2, clusters: 2, cores: 2, threads: 2 };
        assert_eq!(threads.mpidr(0), 0x8100_0000, "MT");
        assert_eq!(
            [1, 2, 4, 8, 15].map(|i| threads.affinity(i)),
            [1, 0x100, 0x1_0000, 1 << 32, 0x1_0001_0101]
        );
    }
}
