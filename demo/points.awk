# The weather file has one column for each quantity; CDF's datapoints have one line for each series and time.
BEGIN { OFS = ","; print "external_id,timestamp,value" }
NR == 1 { next }
{
    print "seattle-precipitation", $1, $2
    print "seattle-temp-max", $1, $3
    print "seattle-temp-min", $1, $4
    print "seattle-wind", $1, $5
}
