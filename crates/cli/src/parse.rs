//! Values of options. Every error names the mend; the option's name is put before it.

use std::path::PathBuf;
use std::time::Duration;

use armlet::arm::model::Property;
use armlet::config::{AcceleratorConfig, AcceleratorKind, Bus, CpuConfig, DriveConfig, DriveFormat};
use armlet::debug::Address;
use armlet::topology::{Level, TopologyConfig};

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestSize(pub u64);

/// Where the serial console goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serial {
    /// Standard input and output.
    Stdio,
    /// Output to a file.
    File(PathBuf),
    /// A socket that is listened on.
    Unix(PathBuf),
    /// Nowhere.
    None,
}

/// Path of a control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPath(pub PathBuf);

const EMPTY_PART: &str = "nothing stands behind a comma: leave that comma out";

/// `2G`, `512M`, `65536K`, `1GiB`; a bare number is MiB.
pub fn memory(text: &str) -> Result<GuestSize, String> {
    let bad = || format!("'{text}' is no size: write 2G, 512M or 65536K");
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let number: u64 = trimmed[..digits].parse().map_err(|_| bad())?;
    let unit = trimmed[digits..].trim().to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "m" | "mb" | "mib" => 20,
        "b" => 0,
        "k" | "kb" | "kib" => 10,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(bad()),
    };
    number
        .checked_mul(1 << shift)
        .map(GuestSize)
        .ok_or_else(|| format!("'{text}' is more than any host has: give a smaller size"))
}

/// Numbers of CPUs: at the start, and at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus {
    /// At the start.
    pub count: usize,
    /// With those that are plugged later; as many as at the start if none is given.
    pub max: Option<usize>,
    /// How they are arranged.
    pub topology: TopologyConfig,
}

/// `N[,max=M][,sockets=S][,clusters=C][,cores=K][,threads=T]`; without a number there are as many as the rest says.
pub fn cpus(text: &str) -> Result<Cpus, String> {
    let number = |text: &str| {
        text.parse().map_err(|_| format!("'{text}' is no number of CPUs: write 1, 2, 4, ... or 4,max=8"))
    };
    let (mut count, mut max, mut topology) = (None, None, TopologyConfig::default());
    for (n, part) in text.split(',').enumerate() {
        match part.split_once('=') {
            None if n == 0 => count = Some(number(part)?),
            _ if part.is_empty() => return Err(EMPTY_PART.into()),
            Some(("cpus", value)) => count = Some(number(value)?),
            Some(("max" | "maxcpus", value)) => max = Some(number(value)?),
            Some((name, value)) if let Some(level) = Level::ALL.into_iter().find(|l| l.name() == name) => {
                topology.set(level, number(value)?);
            }
            _ => {
                return Err(format!(
                    "unknown option '{part}': use max=, sockets=, clusters=, cores= or threads="
                ));
            }
        }
    }
    let count = count.or(max).unwrap_or_else(|| topology.product());
    Ok(Cpus { count, max, topology })
}

/// Seconds, also a fraction.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is no time: write a number of seconds above 0, such as 30 or 0.5");
    let seconds: f64 = text.parse().map_err(|_| bad())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(d) if !d.is_zero() => Ok(d),
        _ => Err(bad()),
    }
}

/// `NAME[,FEATURE=on|off]...`.
pub fn cpu(text: &str) -> Result<CpuConfig, String> {
    let mut parts = text.split(',');
    let model = parts.next().unwrap_or_default().to_string();
    let mut features = Vec::new();
    for part in parts {
        match part.split_once('=') {
            Some((name, value)) => match Property::choice(name, value) {
                Some(Ok(all)) => features.extend(all.into_iter().map(|(name, on)| (name.to_owned(), on))),
                Some(Err(values)) => {
                    return Err(format!("{name} cannot be '{value}': write {name}= with one of {values}"));
                }
                None => features.push((name.into(), on_off(name, value)?)),
            },
            None if part.is_empty() => return Err(EMPTY_PART.into()),
            None => return Err(format!("feature '{part}' has no value: write {part}=on or {part}=off")),
        }
    }
    Ok(CpuConfig { model, features })
}

/// `NAME[,OPTION=VALUE]...`.
pub fn accelerator(text: &str) -> Result<AcceleratorConfig, String> {
    let mut parts = text.split(',');
    let kind = match parts.next().unwrap_or_default() {
        "auto" => AcceleratorKind::Auto,
        "kvm" => AcceleratorKind::Kvm,
        "jit" => AcceleratorKind::Jit,
        "dummy" => AcceleratorKind::Dummy,
        other => return Err(format!("unknown accelerator '{other}': use auto, kvm, jit or dummy")),
    };
    let mut options = Vec::new();
    for part in parts {
        if part.is_empty() {
            return Err(EMPTY_PART.into());
        }
        let Some((name, value)) = part.split_once('=') else {
            return Err(format!("option '{part}' has no value: write {part}=VALUE"));
        };
        options.push((name.into(), value.into()));
    }
    Ok(AcceleratorConfig { kind, options })
}

/// `FILE[,format=raw][,readonly=on][,snapshot=on][,bus=pci]`; a comma in the file's name is written twice.
pub fn drive(text: &str) -> Result<DriveConfig, String> {
    let mut parts = split_commas(text).into_iter();
    let first = parts.next().unwrap_or_default();
    let file = first.strip_prefix("file=").unwrap_or(&first);
    if file.is_empty() {
        return Err("no file is named: write --drive FILE".into());
    }
    let mut drive = DriveConfig::new(file);
    for part in parts {
        if part.is_empty() {
            return Err(EMPTY_PART.into());
        }
        let Some((name, value)) = part.split_once('=') else {
            return Err(format!("option '{part}' has no value: write {part}=on"));
        };
        match name {
            "format" if value == "raw" => drive.format = Some(DriveFormat::Raw),
            "format" => {
                return Err(format!(
                    "format '{value}' is not known: convert the image to raw, and say format=raw"
                ));
            }
            "readonly" => drive.readonly = on_off(name, value)?,
            "snapshot" => drive.snapshot = on_off(name, value)?,
            "bus" => match [Bus::Mmio, Bus::Pci].into_iter().find(|bus| bus.name() == value) {
                Some(bus) => drive.bus = bus,
                None => return Err(format!("bus cannot be '{value}': write bus=mmio or bus=pci")),
            },
            _ => return Err(format!("unknown option '{name}': use format, readonly, snapshot or bus")),
        }
    }
    Ok(drive)
}

/// `stdio`, `file:PATH`, `unix:PATH` or `none`.
pub fn serial(text: &str) -> Result<Serial, String> {
    match text.split_once(':') {
        Some(("file", path)) if !path.is_empty() => Ok(Serial::File(path.into())),
        Some(("unix", path)) if !path.is_empty() => Ok(Serial::Unix(path.into())),
        None if text == "stdio" => Ok(Serial::Stdio),
        None if text == "none" => Ok(Serial::None),
        _ => Err(format!("'{text}' is no place for a console: use stdio, file:PATH, unix:PATH or none")),
    }
}

/// `unix:PATH`.
pub fn control_socket(text: &str) -> Result<ControlPath, String> {
    match text.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(ControlPath(path.into())),
        _ => Err(format!("'{text}' is no place for a control socket: use unix:PATH")),
    }
}

/// `PATH` or `unix:PATH`.
pub fn control(text: &str) -> Result<ControlPath, String> {
    match text.strip_prefix("unix:").unwrap_or(text) {
        "" => Err("no path is given: write the one that was given to --qmp".into()),
        path => Ok(ControlPath(path.into())),
    }
}

/// `:PORT`, `HOST:PORT` or `unix:PATH`.
pub fn gdb(text: &str) -> Result<Address, String> {
    text.parse().map_err(|e: armlet::debug::AddressError| e.to_string())
}

fn on_off(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{name} cannot be '{value}': write {name}=on or {name}=off")),
    }
}

/// Splits at commas; two in a row are one that belongs to the text.
fn split_commas(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && chars.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("2G", 2 << 30),
            ("512M", 512 << 20),
            ("512", 512 << 20),
            ("65536K", 64 << 20),
            ("1 GiB", 1 << 30),
            ("1gb", 1 << 30),
            ("4096b", 4096),
            ("0", 0),
        ] {
            assert_eq!(memory(text), Ok(GuestSize(bytes)), "{text}");
        }
        for text in ["", "G", "2X", "-1G", "1.5G", "99999999999999999999", "99999999T"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn drives_keep_commas_that_are_doubled() {
        let d = drive("a,,b.img,snapshot=on,readonly=off,format=raw").unwrap();
        assert_eq!(d.file, PathBuf::from("a,b.img"));
        assert!(d.snapshot && !d.readonly);
        assert_eq!(drive("file=x").unwrap().file, PathBuf::from("x"));
        assert_eq!((d.bus, drive("x,bus=pci").unwrap().bus), (Bus::Mmio, Bus::Pci));
        for text in ["", "x,snapshot", "x,format=qcow2", "x,cache=none", "x,readonly=yes", "x,bus=usb"] {
            assert!(drive(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus_accelerators_serials_and_times() {
        assert_eq!(cpu("max,lse=off").unwrap().features, [("lse".to_string(), false)]);
        assert!(cpu("max,lse").is_err());
        let algorithm = cpu("max,pauth=qarma3").unwrap().features;
        assert!(algorithm.contains(&("pauth-qarma3".into(), true)), "{algorithm:?}");
        assert!(algorithm.contains(&("pauth-impdef".into(), false)), "{algorithm:?}");
        assert!(cpu("max,pauth=sha1").unwrap_err().contains("qarma5"));
        assert_eq!(accelerator("jit,smc=strict").unwrap().options, [("smc".into(), "strict".into())]);
        assert!(accelerator("tcg").is_err());
        assert_eq!(serial("file:/tmp/a:b"), Ok(Serial::File("/tmp/a:b".into())));
        for text in ["", "file:", "tcp:1", "stdio:"] {
            assert!(serial(text).is_err(), "{text}");
        }
        let topology = TopologyConfig::default();
        assert_eq!(cpus("4"), Ok(Cpus { count: 4, max: None, topology }));
        assert_eq!(cpus("4,max=8"), Ok(Cpus { count: 4, max: Some(8), topology }));
        assert_eq!(cpus("cpus=4,maxcpus=8"), cpus("4,max=8"));
        assert_eq!(cpus("max=8"), Ok(Cpus { count: 8, max: Some(8), topology }));
        let topology = TopologyConfig { clusters: Some(2), threads: Some(2), ..topology };
        assert_eq!(cpus("8,clusters=2,threads=2"), Ok(Cpus { count: 8, max: None, topology }));
        assert_eq!(cpus("threads=2,clusters=2").map(|c| c.count), Ok(4));
        for text in ["", "x", "-1", "4,", "4,max", "4,max=x", "4,cores=x", "4,dies=1", "cores"] {
            assert!(cpus(text).is_err(), "{text}");
        }
        assert_eq!(control_socket("unix:a,b"), Ok(ControlPath("a,b".into())));
        for text in ["", "unix:", "a", "tcp:localhost:4444"] {
            assert!(control_socket(text).is_err(), "{text}");
        }
        assert_eq!(control("unix:a"), control("a"));
        assert!(control("").is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "nan", "inf", "x"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
