//! What the reader may not even ask, beyond what grants and `readonly` refuse.
//!
//! The engine checks the reader's grants on tables, columns and sources itself. Left over are functions that it
//! lets anybody call although they read files or run SQL out of strings (`file()` as a scalar function, `eval()`
//! as a table function), and the tables of the database `system`, which every user may read unless the server's
//! configuration says otherwise, and libchdb reads no such setting. They are looked for in the syntax tree that
//! ClickHouse's own parser makes of the very statement (`EXPLAIN AST`), so neither quoting nor comments hide them.
//! What the tree does not name (the function of `APPLY`, settings) is refused altogether.

/// Functions that reach past the grants, by exact or any other case.
const FUNCTIONS: [&str; 12] = [
    "file",
    "eval",
    "executable",
    "viewExplain",
    "catboostEvaluate",
    "aiClassify",
    "aiGenerate",
    "aiEmbed",
    "aiExtract",
    "aiTranslate",
    "arrowstream",
    "input",
];

/// Functions that may stand in the place of a table. None takes a table's name as a text (`merge`).
const TABLE_FUNCTIONS: [&str; 11] = [
    "numbers",
    "numbers_mt",
    "zeros",
    "zeros_mt",
    "generate_series",
    "generateSeries",
    "generateRandom",
    "values",
    "view",
    "null",
    "primes",
];

/// The tables of the database `system` that clients and dashboards need: constants, the session's own state, and those
/// in which the engine shows nobody more than their grants. No table that names statements is among them
/// (`mutations`, `processes`, `errors`, every log).
const SYSTEM_TABLES: [&str; 27] = [
    "aggregate_function_combinators",
    "build_options",
    "collations",
    "columns",
    "contributors",
    "current_roles",
    "data_type_families",
    "database_engines",
    "databases",
    "enabled_roles",
    "formats",
    "functions",
    "keywords",
    "licenses",
    "numbers",
    "numbers_mt",
    "one",
    "primes",
    "privileges",
    "settings",
    "table_engines",
    "table_functions",
    "tables",
    "time_zones",
    "unicode",
    "zeros",
    "zeros_mt",
];

/// The statements that only read, by the root of their tree.
const ROOTS: [&str; 16] = [
    "SelectWithUnionQuery",
    "SelectIntersectExceptQuery",
    "Explain",
    "DescribeQuery",
    "ExistsTableQuery",
    "ExistsViewQuery",
    "ExistsDatabaseQuery",
    "ExistsDictionaryQuery",
    "ShowTables",
    "ShowColumns",
    "ShowFunctions",
    "ShowSetting",
    "ShowEngineQuery",
    "ShowCreateTableQuery",
    "ShowCreateViewQuery",
    "ShowCreateDatabaseQuery",
];

/// What a tree whose root is `ShowTables` may show: `SHOW MERGES` and `SHOW CLUSTERS` look the same.
const SHOWN: [&str; 7] = ["TABLES", "FULL", "TEMPORARY", "DATABASES", "DICTIONARIES", "SETTINGS", "CHANGED"];

/// A statement that the reader may not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Forbidden {
    /// It names a function that reads files or runs text.
    #[error("{0} is not available to this user")]
    Function(String),
    /// It names a table of the engine that could show other users' statements.
    #[error("system.{0} is not available to this user")]
    SystemTable(String),
    /// `SETTINGS` in the statement: the engine holds those of a subquery to no limit, not even to `readonly`.
    #[error(
        "Cannot modify settings inside a statement in readonly mode; they can be parameters of the request"
    )]
    Settings,
    /// `APPLY`, whose function the tree does not tell.
    #[error("APPLY is not available to this user")]
    Apply,
    /// It has no tree that could be looked at.
    #[error("this statement is not available to this user")]
    Opaque,
}

/// Authorizes a statement by the text of its tree (format `TSVRaw`) and its second word.
pub(crate) fn authorize(tree: &str, second_word: Option<&str>) -> Result<(), Forbidden> {
    let root = tree.split([' ', '\n']).next().unwrap_or_default();
    let shown = || second_word.is_some_and(|word| SHOWN.iter().any(|shown| shown.eq_ignore_ascii_case(word)));
    if !ROOTS.contains(&root) || (root == "ShowTables" && !shown()) {
        return Err(Forbidden::Opaque);
    }
    if tree.contains("ColumnsApplyTransformer") {
        return Err(Forbidden::Apply);
    }
    let mut above: Vec<(usize, &str)> = Vec::new();
    for line in tree.lines() {
        let node = line.trim_start_matches(' ');
        let indent = line.len() - node.len();
        while above.last().is_some_and(|(depth, _)| *depth >= indent) {
            above.pop();
        }
        let mut words = node.split(' ');
        let kind = words.next().unwrap_or_default();
        // The options of EXPLAIN stand right below it.
        if kind == "Set" && above.last().is_none_or(|(_, parent)| *parent != "Explain") {
            return Err(Forbidden::Settings);
        }
        // A function can be handed to another one by its bare name, and a table to IN: hence identifiers too.
        if matches!(kind, "Function" | "Identifier" | "TableIdentifier") {
            let name = words.next().unwrap_or_default();
            let base = name.trim_matches('`');
            if kind != "TableIdentifier"
                && FUNCTIONS.iter().any(|function| function.eq_ignore_ascii_case(base))
            {
                return Err(Forbidden::Function(base.to_owned()));
            }
            let is_table = above.last().is_some_and(|(_, parent)| *parent == "TableExpression");
            if kind == "Function" && is_table && !TABLE_FUNCTIONS.contains(&base) {
                return Err(Forbidden::Function(base.to_owned()));
            }
            if let Some(table) = base.strip_prefix("system.") {
                let table = table.split('.').next().unwrap_or_default();
                if kind != "Function" && !SYSTEM_TABLES.contains(&table) {
                    return Err(Forbidden::SystemTable(table.to_owned()));
                }
            }
        }
        above.push((indent, kind));
    }
    Ok(())
}

/// Whether unqualified names may mean this database's tables. Those of `system` are authorized by their full names.
pub(crate) fn is_usable(database: &str) -> bool {
    database != "system"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(tree: &str) -> Result<(), Forbidden> {
        authorize(tree, Some("x"))
    }

    #[test]
    fn a_plain_select_passes() {
        assert_eq!(
            of("SelectWithUnionQuery (children 1)\n ExpressionList\n  Function count (children 1)\n"),
            Ok(())
        );
    }

    #[test]
    fn functions_that_reach_out_are_found_wherever_they_stand() {
        let file = Err(Forbidden::Function("file".into()));
        assert_eq!(
            of("Explain EXPLAIN QUERY TREE (children 1)\n SelectQuery\n  Function file (children 1)"),
            file
        );
        assert_eq!(of("SelectWithUnionQuery\n Function arrayMap\n  Identifier file"), file);
        assert_eq!(of("SelectWithUnionQuery\n Function `file` (alias x)"), file);
        let tables = "SelectWithUnionQuery\n TableExpression (children 1)\n  Function ";
        assert_eq!(of(&format!("{tables}numbers (children 1)")), Ok(()));
        assert_eq!(of(&format!("{tables}url (children 1)")), Err(Forbidden::Function("url".into())));
    }

    #[test]
    fn of_the_systems_tables_only_those_listed_pass() {
        for (name, passes) in [
            ("TableIdentifier system.settings (alias s)", true),
            ("Identifier system.settings.name", true),
            ("TableIdentifier system.mutations", false),
            ("Identifier system.mutations", false),
            ("TableIdentifier tally.mutations", true),
        ] {
            let found = of(&format!("SelectWithUnionQuery\n TableExpression\n  {name}"));
            assert_eq!(found.is_ok(), passes, "{name}: {found:?}");
        }
        assert_eq!(authorize("ShowTables\n", Some("full")), Ok(()));
        assert_eq!(authorize("ShowTables\n", Some("MERGES")), Err(Forbidden::Opaque));
    }

    #[test]
    fn settings_are_refused_wherever_they_stand() {
        assert_eq!(of("SelectWithUnionQuery\n Set"), Err(Forbidden::Settings));
        assert_eq!(
            of("Explain EXPLAIN\n SelectWithUnionQuery\n  SelectQuery\n   Set"),
            Err(Forbidden::Settings)
        );
        assert_eq!(of("Explain EXPLAIN\n Set\n SelectWithUnionQuery"), Ok(()));
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        for text in
            ["", "{\"explain\":\"SelectWithUnionQuery\"}", "a3f0", "InsertQuery", "ShowProcesslistQuery"]
        {
            assert_eq!(of(text), Err(Forbidden::Opaque));
        }
        assert_eq!(of("SelectWithUnionQuery\n ColumnsApplyTransformer"), Err(Forbidden::Apply));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(SelectWithUnionQuery)?( {0,3}(Function|Identifier|x) ?[a-z`]{0,5}\n){0,8}") {
            let _ = of(&text);
        }
    }
}
