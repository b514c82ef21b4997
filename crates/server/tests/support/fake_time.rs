//! A wall clock that the test sets, by `libfaketime`. The monotonic clock is the machine's.

use std::{fs, path::PathBuf, time::UNIX_EPOCH};

use tempfile::TempDir;

use super::{nothing_may_be_missing, proxy::Proxy, say};

/// What the program believes the time to be.
pub struct FakeTime {
    directory: TempDir,
    library: PathBuf,
}

impl FakeTime {
    /// `None`, and a line that says so, when it is not installed.
    pub fn new() -> Option<Self> {
        let libraries = fs::read_dir("/usr/lib").unwrap().filter_map(|folder| {
            let library = folder.unwrap().path().join("faketime/libfaketime.so.1");
            library.exists().then_some(library)
        });
        let Some(library) = libraries.max() else {
            assert!(!nothing_may_be_missing(), "no libfaketime");
            say("what takes a clock that jumps was left out: there is no libfaketime");
            return None;
        };
        let time = Self {
            directory: TempDir::new().unwrap(),
            library,
        };
        time.is("+0");
        Some(time)
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("time")
    }

    /// As the library has it: an offset, or a moment that stays.
    pub fn is(&self, time: &str) {
        // In one step, as a reader may come at any moment.
        let draft = self.directory.path().join("draft");
        fs::write(&draft, format!("{time}\n")).unwrap();
        fs::rename(draft, self.file()).unwrap();
    }

    pub fn is_off_by(&self, seconds: i64) {
        self.is(&format!("{seconds:+}"));
    }

    /// Goes on from `moment`, in seconds since 1970.
    pub fn goes_on_from(&self, moment: i64) {
        let now = UNIX_EPOCH.elapsed().unwrap();
        self.is_off_by(moment - i64::try_from(now.as_secs()).unwrap());
    }

    pub fn rules(&self, proxy: &mut Proxy) {
        proxy.set("LD_PRELOAD", self.library.to_str().unwrap());
        proxy.set("FAKETIME_TIMESTAMP_FILE", self.file().to_str().unwrap());
        proxy.set("FAKETIME_NO_CACHE", "1");
        proxy.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}
