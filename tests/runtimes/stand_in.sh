# Sourced by what stands before the real embed_shard.py in the PATH of a test: its arguments, which try of which shard
# this is, and the real program.
arguments=("$@")
shard='' attempt=''
while (($#)); do
    case $1 in
        --shard) shard=$(basename "$2" .fasta) ;;
        --attempt) attempt=$2 ;;
    esac
    shift
done
real=$(type -aP embed_shard.py | sed -n 2p)
