//! What the reader may set, by name: an allow-list, limits that it can only lower, and what is always forced.
//!
//! A setting that is not listed here is refused, by its name and never by a prefix: `output_format_schema` names a
//! file that is written, and its neighbours only say how a number looks. `tests/embedded_reader_files.rs` holds every
//! setting of the engine against these lists.

/// What the reader's queries may use, each of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReaderLimits {
    pub(crate) memory_bytes: u64,
    pub(crate) threads: u64,
}

/// A dashboard's panel that takes longer is of no use to anybody.
const EXECUTION_SECONDS_MAX: u64 = 120;
const RESULT_ROWS_MAX: u64 = 1_000_000;
/// Of the result in columns; a buffered JSON text is a few times that.
pub(crate) const BUFFERED_RESULT_BYTES_MAX: u64 = 128 << 20;
const TEMPORARY_BYTES_MAX: u64 = 1 << 30;

/// Settings that change how a result looks, or nothing at all: any value is taken. Not among them:
/// `output_format_schema`, a file's name, and `output_format_pretty_squash_*`, by which a query waits for ever.
const FREE: [&str; 127] = [
    "session_timezone",
    "date_time_output_format",
    "join_use_nulls",
    "extremes",
    "max_block_size",
    "cancel_http_readonly_queries_on_client_close",
    "send_progress_in_http_headers",
    "http_headers_progress_interval_ms",
    "http_write_exception_in_output_format",
    "add_http_cors_header",
    "group_by_use_nulls",
    "aggregate_functions_null_for_empty",
    "use_client_time_zone",
    "prefer_column_name_to_alias",
    "final",
    "log_comment",
    "format_csv_delimiter",
    "format_csv_null_representation",
    "format_tsv_null_representation",
    "bool_true_representation",
    "bool_false_representation",
    "output_format_always_write_decimal_point_in_float_and_decimal",
    "output_format_arrow_compression_method",
    "output_format_arrow_date_as_uint16",
    "output_format_arrow_fixed_string_as_fixed_byte_array",
    "output_format_arrow_low_cardinality_as_dictionary",
    "output_format_arrow_parallel_encoding",
    "output_format_arrow_string_as_string",
    "output_format_arrow_unsupported_types_as_binary",
    "output_format_arrow_use_64_bit_indexes_for_dictionary",
    "output_format_arrow_use_native_writer",
    "output_format_arrow_use_signed_indexes_for_dictionary",
    "output_format_arrow_uuid_as_fixed_byte_array",
    "output_format_arrow_variant_as_string",
    "output_format_avro_codec",
    "output_format_avro_rows_in_file",
    "output_format_avro_string_column_pattern",
    "output_format_avro_sync_interval",
    "output_format_binary_encode_types_in_binary_format",
    "output_format_binary_write_json_as_string",
    "output_format_bson_string_as_string",
    "output_format_compression_level",
    "output_format_compression_zstd_window_log",
    "output_format_csv_crlf_end_of_line",
    "output_format_csv_header_serialize_tuple_into_separate_columns",
    "output_format_csv_serialize_tuple_into_separate_columns",
    "output_format_decimal_trailing_zeros",
    "output_format_float_precision",
    "output_format_image_height",
    "output_format_image_terminal_mode",
    "output_format_image_width",
    "output_format_json_array_of_rows",
    "output_format_json_escape_forward_slashes",
    "output_format_json_map_as_array_of_tuples",
    "output_format_json_named_tuples_as_objects",
    "output_format_json_pretty_print",
    "output_format_json_quote_64bit_floats",
    "output_format_json_quote_64bit_integers",
    "output_format_json_quote_decimals",
    "output_format_json_quote_denormals",
    "output_format_json_skip_null_value_in_named_tuples",
    "output_format_json_validate_utf8",
    "output_format_markdown_escape_special_characters",
    "output_format_msgpack_uuid_representation",
    "output_format_native_encode_types_in_binary_format",
    "output_format_native_use_flattened_dynamic_and_json_serialization",
    "output_format_native_write_json_as_string",
    "output_format_orc_compression_block_size",
    "output_format_orc_compression_method",
    "output_format_orc_dictionary_key_size_threshold",
    "output_format_orc_row_index_stride",
    "output_format_orc_string_as_string",
    "output_format_orc_writer_time_zone_name",
    "output_format_parallel_formatting",
    "output_format_parquet_batch_size",
    "output_format_parquet_bloom_filter_bits_per_value",
    "output_format_parquet_bloom_filter_flush_threshold_bytes",
    "output_format_parquet_compliant_nested_types",
    "output_format_parquet_compression_method",
    "output_format_parquet_data_page_size",
    "output_format_parquet_date_as_uint16",
    "output_format_parquet_datetime_as_uint32",
    "output_format_parquet_enum_as_byte_array",
    "output_format_parquet_fixed_string_as_fixed_byte_array",
    "output_format_parquet_geometadata",
    "output_format_parquet_max_dictionary_size",
    "output_format_parquet_parallel_encoding",
    "output_format_parquet_row_group_size",
    "output_format_parquet_row_group_size_bytes",
    "output_format_parquet_string_as_string",
    "output_format_parquet_unsupported_types_as_binary",
    "output_format_parquet_use_custom_encoder",
    "output_format_parquet_version",
    "output_format_parquet_write_bloom_filter",
    "output_format_parquet_write_checksums",
    "output_format_parquet_write_page_index",
    "output_format_pretty_color",
    "output_format_pretty_display_footer_column_names",
    "output_format_pretty_display_footer_column_names_min_rows",
    "output_format_pretty_fallback_to_vertical",
    "output_format_pretty_fallback_to_vertical_max_rows_per_chunk",
    "output_format_pretty_fallback_to_vertical_min_columns",
    "output_format_pretty_fallback_to_vertical_min_table_width",
    "output_format_pretty_glue_chunks",
    "output_format_pretty_grid_charset",
    "output_format_pretty_highlight_digit_groups",
    "output_format_pretty_highlight_trailing_spaces",
    "output_format_pretty_max_column_name_width_cut_to",
    "output_format_pretty_max_column_name_width_min_chars_to_cut",
    "output_format_pretty_max_column_pad_width",
    "output_format_pretty_max_rows",
    "output_format_pretty_max_value_width",
    "output_format_pretty_max_value_width_apply_for_single_value",
    "output_format_pretty_multiline_fields",
    "output_format_pretty_named_tuples_as_json",
    "output_format_pretty_row_numbers",
    "output_format_pretty_single_large_number_tip_threshold",
    "output_format_pretty_use_nbsp_for_padding",
    "output_format_sql_insert_include_column_names",
    "output_format_sql_insert_max_batch_size",
    "output_format_sql_insert_quote_names",
    "output_format_sql_insert_table_name",
    "output_format_sql_insert_use_replace",
    "output_format_trim_fixed_string",
    "output_format_tsv_crlf_end_of_line",
    "output_format_values_escape_quote_with_quote",
    "output_format_write_statistics",
];

/// What each of the reader's queries is held to; a request can ask for less.
fn limits(limits: ReaderLimits) -> [(&'static str, u64); 5] {
    [
        ("max_execution_time", EXECUTION_SECONDS_MAX),
        ("max_result_rows", RESULT_ROWS_MAX),
        ("max_result_bytes", BUFFERED_RESULT_BYTES_MAX),
        ("max_memory_usage", limits.memory_bytes),
        ("max_threads", limits.threads),
    ]
}

/// Settings that clients send and that are already so.
const IGNORED: [&str; 2] = ["readonly", "result_overflow_mode"];

/// Set last, whatever came before. Everything that could name a file, a folder, a host or a library is empty, and no
/// format makes a schema file of its own.
const FORCED: [(&str, &str); 18] = [
    ("format_schema", ""),
    ("format_schema_message_name", ""),
    ("format_schema_source", "file"),
    ("output_format_schema", ""),
    ("format_protobuf_use_autogenerated_schema", "0"),
    ("format_capn_proto_use_autogenerated_schema", "0"),
    ("format_template_resultset", ""),
    ("format_template_resultset_format", ""),
    ("format_template_row", ""),
    ("format_template_row_format", ""),
    ("format_avro_schema_registry_url", ""),
    ("input_format_record_errors_file_path", ""),
    ("rename_files_after_processing", ""),
    ("url_base", ""),
    ("timeout_overflow_mode", "throw"),
    ("result_overflow_mode", "throw"),
    // After the others: from here on the engine itself lets nothing be changed.
    ("dialect", "clickhouse"),
    ("readonly", "1"),
];

/// Whether the reader can change a setting, be it only to lower a limit.
pub(crate) fn changeable() -> impl Iterator<Item = &'static str> {
    let lowered = limits(ReaderLimits { memory_bytes: 0, threads: 0 }).map(|(name, _)| name);
    FREE.into_iter().chain(lowered)
}

/// The settings of one of the reader's sessions, in order, from those that the request asks for; the name of the first
/// that the reader may not change is an error.
pub(crate) fn settings<'a>(
    asked: impl Iterator<Item = (&'a str, &'a str)>,
    reader: ReaderLimits,
) -> Result<Vec<(&'a str, String)>, &'a str> {
    let mut limits = limits(reader);
    let mut all = Vec::new();
    for (name, value) in asked {
        if let Some((_, limit)) = limits.iter_mut().find(|(limited, _)| *limited == name) {
            *limit = lower(*limit, value);
        } else if FREE.contains(&name) {
            all.push((name, value.to_owned()));
        } else if !IGNORED.contains(&name) {
            return Err(name);
        }
    }
    all.extend(limits.map(|(name, limit)| (name, limit.to_string())));
    all.push(("max_temporary_data_on_disk_size_for_query", TEMPORARY_BYTES_MAX.to_string()));
    all.extend(FORCED.map(|(name, value)| (name, value.to_owned())));
    Ok(all)
}

/// 0 means 'no limit' in ClickHouse, and asks for ours. Clients send fractions of seconds: they are rounded up.
fn lower(limit: u64, asked: &str) -> u64 {
    let whole = asked.split('.').next().unwrap_or_default().parse::<u64>().unwrap_or(limit);
    let rounded_up = whole.saturating_add(u64::from(asked.contains('.')));
    if rounded_up == 0 { limit } else { limit.min(rounded_up) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ReaderLimits = ReaderLimits { memory_bytes: 7, threads: 2 };

    fn of<'a>(asked: &[(&'a str, &'a str)], name: &str) -> Result<String, &'a str> {
        let all = settings(asked.iter().copied(), LIMITS)?;
        Ok(all.into_iter().rev().find(|(set, _)| *set == name).map(|(_, value)| value).expect("set"))
    }

    #[test]
    fn limits_can_only_be_lowered() {
        for (asked, seconds) in [("64", "64"), ("1.5", "2"), ("999999", "120"), ("0", "120"), ("x", "120")] {
            assert_eq!(of(&[("max_execution_time", asked)], "max_execution_time").as_deref(), Ok(seconds));
        }
        assert_eq!(of(&[("max_threads", "1")], "max_threads").as_deref(), Ok("1"));
        assert_eq!(of(&[("max_memory_usage", "0")], "max_memory_usage").as_deref(), Ok("7"));
    }

    #[test]
    fn names_that_are_not_listed_are_refused_and_paths_are_forced_empty_last() {
        for refused in ["output_format_schema", "format_schema", "output_format_", "allow_ddl", "Final"] {
            assert_eq!(of(&[(refused, "1")], "readonly"), Err(refused));
        }
        let all = settings([("final", "1"), ("readonly", "0")].into_iter(), LIMITS).expect("allowed");
        assert_eq!(all.last(), Some(&("readonly", "1".to_owned())));
        assert!(FORCED.iter().all(|(name, _)| !FREE.contains(name)), "what is forced can't be asked for");
    }
}
