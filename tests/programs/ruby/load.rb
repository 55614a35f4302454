# Ruby's pg: METHOD commit|rollback FILE, where FILE holds a load as JSON.
require "json"
require "pg"

$stdout.sync = true
method, ending, file = ARGV
load = JSON.parse(File.read(file, encoding: "UTF-8"))

def say(*words) = puts(words.map { |word| word.to_s.strip.gsub(/\s*\n\s*/, " ") }.join("\t"))
def quoted(names) = names.map { |name| %("#{name}") }.join(", ")

connection = PG.connect
connection.set_notice_receiver { |result| say("notice", result.error_field(PG::PG_DIAG_MESSAGE_PRIMARY)) }

prepared = lambda do |table, tail|
  columns = table["columns"]
  places = (1..columns.size).map { |at| "$#{at}" }.join(", ")
  connection.prepare(table["name"], "INSERT INTO #{table["name"]} (#{quoted(columns)}) VALUES (#{places})#{tail}")
  table["rows"].each { |row| raise "not one row" unless connection.exec_prepared(table["name"], row).cmd_tuples == 1 }
end

methods = {
  "prepared" => ->(table) { prepared.call(table, "") },
  "upsert" => lambda do |table|
    set = (table["columns"] - table["keys"]).map { |name| %("#{name}" = EXCLUDED."#{name}") }.join(", ")
    prepared.call(table, " ON CONFLICT (#{quoted(table["keys"])}) DO UPDATE SET #{set}")
  end,
  "pipeline" => lambda do |table|
    places = (1..table["columns"].size).map { |at| "$#{at}" }.join(", ")
    connection.enter_pipeline_mode
    table["rows"].each do |row|
      connection.send_query_params("INSERT INTO #{table["name"]} (#{quoted(table["columns"])}) VALUES (#{places})", row)
    end
    connection.pipeline_sync
    refused = nil
    while (result = connection.get_result)
      break if result.result_status == PG::PGRES_PIPELINE_SYNC
      refused ||= result if result.result_status == PG::PGRES_FATAL_ERROR
      connection.get_result
    end
    connection.exit_pipeline_mode
    refused&.check
  end,
  "copy" => lambda do |table|
    encoder = PG::TextEncoder::CopyRow.new
    connection.copy_data("COPY #{table["name"]} (#{quoted(table["columns"])}) FROM STDIN", encoder) do
      table["rows"].each { |row| connection.put_copy_data(row.map { |value| value&.to_s }) }
    end
  end,
}

Back = Class.new(StandardError)
begin
  connection.transaction do
    load.each { |table| methods.fetch(method).call(table) }
    raise Back if ending == "rollback"
  end
  say("committed")
rescue Back
  say("rolled back")
rescue PG::Error => error
  say("refused", error.result.error_field(PG::PG_DIAG_SQLSTATE), error.message)
end
connection.exec("SELECT 1")
say("alive")
