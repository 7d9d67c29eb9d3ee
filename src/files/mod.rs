//! Files: the names users give them, the kind of their content, and their bytes.
//!
//! Names and bytes never meet here. A path is only a name; bytes lie under a key made from a
//! file version's id, so no name can reach another's bytes or the file system. Bytes are stored
//! durably first, then a transaction elsewhere publishes a descriptor that points to them; a key
//! no descriptor points to is an orphan and is swept.
//!
//! Must not know: jobs, applications, HTTP, the store, the clock. Serving is the caller's matter:
//! recorded media types include HTML and SVG, see [`media_type()`].

pub mod blob;
pub mod chunks;
pub mod error;
pub mod local_folder;
pub mod media_type;
pub mod name;
pub mod path;
pub mod staging;

pub use blob::{Blobs, Opened};
pub use error::BlobError;
pub use media_type::media_type;
pub use name::{clean_name, name_from_content_disposition};
pub use path::{DirectoryPath, FilePath, PathError};
pub use staging::Staged;
