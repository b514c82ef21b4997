//! The memory of this process holds keys. It is kept out of files and of other programs' sight.

use std::io;

/// Sees to it that a crash leaves no image of the memory, and on Linux that no other program of the
/// same user reads it, by a debugger or through `/proc`.
pub fn keep() -> io::Result<()> {
    rlimit::Resource::CORE.set(0, 0)?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{DumpableBehavior, dumpable_behavior};

    use super::*;

    #[test]
    fn neither_a_crash_nor_a_debugger_gets_at_the_memory() {
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::Dumpable);
        keep().unwrap();
        assert_eq!(rlimit::Resource::CORE.get().unwrap(), (0, 0));
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
