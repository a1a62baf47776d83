// The same program on gophercloud 1.
package main

import (
	"crypto/tls"
	"net/http"
	"os"

	"github.com/gophercloud/gophercloud"
	"github.com/gophercloud/gophercloud/openstack"
	"github.com/gophercloud/gophercloud/openstack/identity/v3/tokens"
	"github.com/gophercloud/gophercloud/openstack/objectstorage/v1/containers"
	"github.com/gophercloud/utils/openstack/clientconfig"

	"keystone-broker/tests/stack/gophercloud/work"
)

func main() { work.Main(signIn) }

func signIn() (work.Session, error) {
	auth, endpoint, trust, err := settings()
	if err != nil {
		return work.Session{}, err
	}
	auth.AllowReauth = true
	provider, err := openstack.NewClient(auth.IdentityEndpoint)
	if err != nil {
		return work.Session{}, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = trust
	provider.HTTPClient = http.Client{Transport: transport}
	if err := openstack.Authenticate(provider, auth); err != nil {
		return work.Session{}, err
	}
	store, err := openstack.NewObjectStorageV1(provider, endpoint)
	if err != nil {
		return work.Session{}, err
	}
	project, err := provider.GetAuthResult().(tokens.CreateResult).ExtractProject()
	if err != nil {
		return work.Session{}, err
	}
	return work.Session{Project: project.ID, Round: func() (int, error) { return round(store) }}, nil
}

func settings() (gophercloud.AuthOptions, gophercloud.EndpointOpts, *tls.Config, error) {
	var none gophercloud.AuthOptions
	if os.Getenv("OS_CLOUD") == "" {
		trust, err := work.TLS(os.Getenv("OS_CACERT"))
		if err != nil {
			return none, gophercloud.EndpointOpts{}, nil, err
		}
		auth, err := openstack.AuthOptionsFromEnv()
		return auth, gophercloud.EndpointOpts{Region: os.Getenv("OS_REGION_NAME")}, trust, err
	}
	var options clientconfig.ClientOpts
	cloud, err := clientconfig.GetCloudFromYAML(&options)
	if err != nil {
		return none, gophercloud.EndpointOpts{}, nil, err
	}
	auth, err := clientconfig.AuthOptions(&options)
	if err != nil {
		return none, gophercloud.EndpointOpts{}, nil, err
	}
	trust, err := work.TLS(cloud.CACertFile)
	return *auth, gophercloud.EndpointOpts{Region: cloud.RegionName}, trust, err
}

func round(store *gophercloud.ServiceClient) (int, error) {
	if _, err := containers.Create(store, "gophercloud-v1", nil).Extract(); err != nil {
		return 0, err
	}
	page, err := containers.List(store, nil).AllPages()
	if err != nil {
		return 0, err
	}
	names, err := containers.ExtractNames(page)
	return len(names), err
}
