//! Parquet files of one schema, joined into one: their columns are copied as they are, a row group each, and only the
//! footer is written anew.

use std::{
    io::{self, Write},
    mem,
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use parquet::{
    column::writer::ColumnCloseResult,
    errors::{ParquetError, Result},
    file::{metadata::ParquetMetaDataReader, properties::WriterProperties, writer::SerializedFileWriter},
};

/// What it holds between two files is what the footer will say of them: a few kilobytes each.
#[derive(Default)]
pub(super) struct Joiner {
    out: Out,
    writer: Option<SerializedFileWriter<Out>>,
}

/// Takes what the writer writes, to be taken away from it.
#[derive(Clone, Default)]
struct Out(Arc<Mutex<Vec<u8>>>);

impl Joiner {
    /// Adds a file's rows. After an error nothing more may be added.
    pub(super) fn add(&mut self, file: &Bytes) -> Result<()> {
        let metadata = ParquetMetaDataReader::new().parse_and_finish(file)?;
        let schema = metadata.file_metadata().schema_descr().root_schema_ptr();
        let writer = if let Some(writer) = &mut self.writer {
            if writer.schema_descr().root_schema_ptr() != schema {
                return Err(ParquetError::General("another schema".into()));
            }
            writer
        } else {
            let properties = WriterProperties::builder().set_created_by("tally".into()).build();
            let writer = SerializedFileWriter::new(self.out.clone(), schema, Arc::new(properties))?;
            self.writer.insert(writer)
        };
        for group in metadata.row_groups() {
            let mut out = writer.next_row_group()?;
            for column in group.columns() {
                let copied = ColumnCloseResult {
                    bytes_written: column.compressed_size().unsigned_abs(),
                    rows_written: group.num_rows().unsigned_abs(),
                    metadata: column.clone(),
                    bloom_filter: None,
                    column_index: None,
                    offset_index: None,
                };
                out.append_column(file, copied)?;
            }
            out.close()?;
        }
        Ok(())
    }

    /// Writes the footer.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.writer.as_mut().map_or(Ok(()), |writer| writer.finish().map(drop))
    }

    /// What was written since it was last taken.
    pub(super) fn take(&mut self) -> Bytes {
        mem::take(&mut *self.out.0.lock()).into()
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
