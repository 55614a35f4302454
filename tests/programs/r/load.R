# RPostgreSQL: METHOD commit|rollback FILE, where FILE holds a load as JSON.
suppressPackageStartupMessages({
  library(RPostgreSQL)
  library(jsonlite)
})

arguments <- commandArgs(trailingOnly = TRUE)
load <- fromJSON(arguments[3], simplifyVector = FALSE)

say <- function(...) cat(gsub("\\s*\n\\s*", " ", paste(..., sep = "\t")), "\n", sep = "")
quoted <- function(names) paste0('"', unlist(names), '"', collapse = ", ")

connection <- dbConnect(
  PostgreSQL(),
  host = Sys.getenv("PGHOST"), port = Sys.getenv("PGPORT"), user = Sys.getenv("PGUSER"),
  password = Sys.getenv("PGPASSWORD"), dbname = Sys.getenv("PGDATABASE")
)
run <- function(...) invisible(dbClearResult(dbSendQuery(connection, ...)))

# RPostgreSQL sends a NULL among its parameters as the text NA: a row leaves such columns out.
insert <- function(table, row, ending = function(columns) "") {
  given <- !sapply(row, is.null)
  columns <- unlist(table$columns)[given]
  places <- paste0("$", seq_along(columns), collapse = ", ")
  run(sprintf("INSERT INTO %s (%s) VALUES (%s)%s", table$name, quoted(columns), places, ending(columns)), unname(row[given]))
}

methods <- list(
  parameters = function(table) for (row in table$rows) insert(table, row),
  upsert = function(table) {
    ending <- function(columns) {
      rest <- setdiff(columns, unlist(table$keys))
      set <- paste0('"', rest, '" = EXCLUDED."', rest, '"', collapse = ", ")
      sprintf(" ON CONFLICT (%s) DO UPDATE SET %s", quoted(table$keys), set)
    }
    for (row in table$rows) insert(table, row, ending)
  },
  copy = function(table) {
    columns <- lapply(seq_along(table$columns), function(at) {
      sapply(table$rows, function(row) if (is.null(row[[at]])) NA else row[[at]])
    })
    frame <- setNames(as.data.frame(columns, stringsAsFactors = FALSE), unlist(table$columns))
    run(sprintf("COPY %s (%s) FROM STDIN", table$name, quoted(table$columns)))
    postgresqlCopyInDataframe(connection, frame)
  }
)

refused <- tryCatch(
  {
    run("BEGIN")
    for (table in load) methods[[arguments[1]]](table)
    if (arguments[2] == "rollback") {
      run("ROLLBACK")
      say("rolled back")
    } else {
      run("COMMIT")
      say("committed")
    }
    FALSE
  },
  error = function(error) {
    say("refused", "", conditionMessage(error))
    TRUE
  }
)
if (refused) run("ROLLBACK")
invisible(dbGetQuery(connection, "SELECT 1"))
say("alive")
invisible(dbDisconnect(connection))
