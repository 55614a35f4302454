//! Small files that an administrator names: keys, assertions, certificates.

use std::fs::{Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zeroize::Zeroizing;

/// A file's content, and what the system says of the very file that was read.
///
/// # Errors
/// Why it cannot be had, in words that hold nothing of it.
pub fn read(path: &Path, longest: usize) -> Result<(Zeroizing<Vec<u8>>, Metadata), String> {
    let told = |error: std::io::Error| match error.raw_os_error() {
        Some(_) => {
            // "No such file or directory (os error 2)": the number says nothing more.
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or_default().to_owned()
        }
        None => error.to_string(),
    };
    // A pipe that nobody writes to would be waited for.
    let options = libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
    let mut file = OpenOptions::new().read(true).custom_flags(options).open(path).map_err(told)?;
    let metadata = file.metadata().map_err(told)?;
    if !metadata.is_file() {
        return Err("it is not a regular file".into());
    }
    // Never grown: that would leave a copy behind.
    let mut content = Zeroizing::new(vec![0; longest + 1]);
    let mut length = 0;
    while length < content.len() {
        match file.read(&mut content[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(told(error)),
        }
    }
    if length > longest {
        return Err(format!("it has more than {longest} bytes"));
    }
    content.truncate(length);
    Ok((content, metadata))
}

#[cfg(test)]
pub mod tests {
    use std::ffi::CString;
    use std::path::PathBuf;

    use super::*;

    /// A file of the test's own, which goes with it.
    pub struct TestFile(pub PathBuf);

    impl TestFile {
        pub fn with(content: &[u8]) -> TestFile {
            let mut random = [0; 8];
            getrandom::fill(&mut random).unwrap();
            let name = format!("cdf-fdw-{:016x}", u64::from_le_bytes(random));
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, content).unwrap();
            TestFile(path)
        }
    }

    impl Drop for TestFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_file_is_read_whole_up_to_its_bound() {
        let file = TestFile::with(b"12345");
        assert_eq!(**read(&file.0, 5).unwrap().0, *b"12345");
        assert_eq!(read(&file.0, 4).unwrap_err(), "it has more than 4 bytes");
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        assert_eq!(read(Path::new("/nowhere/at/all"), 9).unwrap_err(), "No such file or directory");
        assert_eq!(read(Path::new("/"), 9).unwrap_err(), "it is not a regular file");
        let file = TestFile::with(b"");
        std::fs::remove_file(&file.0).unwrap();
        let name = CString::new(file.0.to_str().unwrap()).unwrap();
        // SAFETY: the name is NUL-terminated.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        assert_eq!(read(&file.0, 9).unwrap_err(), "it is not a regular file");
    }
}
