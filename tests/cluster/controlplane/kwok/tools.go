//go:build tools

// Package kwok pins the kwok that the cluster tests run.
package kwok

import _ "sigs.k8s.io/kwok/cmd/kwok"
